//! The machine's DMA engine and remapping unit, which `tools/devices` makes.

use crate::memory::{read32, read64, write32, write64};
use crate::{Fault, acpi};

/// The engine's registers; `tools/devices/src/engine.rs` tells of them.
const ENGINE: u64 = 0xfed5_0000;
const BUFFER: u64 = ENGINE + 0x800;

/// Whether the engine is there.
pub fn is_there() -> bool {
    read32(ENGINE) == Ok(u32::from_le_bytes(*b"XDMA"))
}

/// Has the device `source` store a word; returns whether it was let.
///
/// # Errors
///
/// The registers cannot be reached.
pub fn store(source: u16, address: u64, value: u64) -> Result<bool, Fault> {
    write64(BUFFER, value)?;
    access(source, address, 2)
}

/// Has the device `source` fetch a word; nothing where it was blocked.
///
/// # Errors
///
/// The registers cannot be reached.
pub fn fetch(source: u16, address: u64) -> Result<Option<u64>, Fault> {
    let is_let = access(source, address, 1)?;
    Ok(is_let.then_some(read64(BUFFER)?))
}

/// Has the device `source` store a word again and again, so many microseconds apart; 0 ends that. What [`counts`] gives
/// begins anew.
///
/// # Errors
///
/// The registers cannot be reached.
pub fn repeat(source: u16, address: u64, value: u64, microseconds: u32) -> Result<(), Fault> {
    prepare(source, address)?;
    write64(BUFFER, value)?;
    if microseconds != 0 {
        write64(ENGINE + 0x20, 0)?;
    }
    write32(ENGINE + 0x1c, microseconds)
}

/// How many repeated stores there were, and how many of them were blocked.
///
/// # Errors
///
/// The registers cannot be reached.
pub fn counts() -> Result<(u32, u32), Fault> {
    Ok((read32(ENGINE + 0x20)?, read32(ENGINE + 0x24)?))
}

fn access(source: u16, address: u64, command: u32) -> Result<bool, Fault> {
    prepare(source, address)?;
    write32(ENGINE + 0x18, command)?;
    Ok(read32(ENGINE + 0x18)? == 0)
}

fn prepare(source: u16, address: u64) -> Result<(), Fault> {
    write64(ENGINE + 8, address)?;
    write32(ENGINE + 0x10, 8)?;
    write32(ENGINE + 0x14, source.into())
}

/// The remapping unit's registers, where the firmware tells of one (VT-d, "DMA Remapping Reporting Structure").
pub fn unit() -> Option<u64> {
    let table = acpi::table(*b"DMAR")?;
    // The first structure, behind a header of 48 bytes, is a unit's.
    read64(table + 48 + 8).ok()
}
