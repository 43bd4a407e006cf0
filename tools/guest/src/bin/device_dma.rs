//! Devices reach all memory that the remapping unit does not keep from them: an engine stores and fetches, and is blocked
//! where its bus has no tables, with a record that says who, where and why.
//! devices: yes
//! cmdline: dmap=off
#![no_std]
#![no_main]

use guest::memory::{FREE, read32, read64, write32, write64};
use guest::{check, check_eq, cpu, dma, guest};

guest!(main);

const PAGE: u64 = FREE;
/// A root table without an entry.
const ROOT: u64 = FREE + 0x1000;
const DEVICE: u16 = 0x28;
/// Registers of the unit (VT-d, "Register Descriptions").
const GLOBAL_COMMAND: u64 = 0x18;
const GLOBAL_STATUS: u64 = 0x1c;
const ROOT_TABLE: u64 = 0x20;
const FAULT_STATUS: u64 = 0x34;
const ROOT_NOT_PRESENT: u64 = 1;

fn main() {
    check!(dma::is_there(), "the engine");
    let unit = dma::unit();
    check!(unit.is_some(), "the firmware tells of a unit");
    let Some(unit) = unit else { return };
    check_eq!(read32(unit), Ok(0x10), "the unit's version");
    reaches_memory();
    stores_by_itself();
    let cleared = (0..512).all(|entry| write64(ROOT + 8 * entry, 0).is_ok());
    check!(cleared, "the root table");
    is_blocked(unit);
}

fn reaches_memory() {
    check_eq!(write64(PAGE, 1), Ok(()), "memory");
    check_eq!(dma::store(DEVICE, PAGE, 0x5ec2), Ok(true), "a store");
    check_eq!(read64(PAGE), Ok(0x5ec2), "what was stored");
    check_eq!(dma::fetch(DEVICE, PAGE), Ok(Some(0x5ec2)), "a fetch");
}

/// Between the guest's instructions, whether they exit or not.
fn stores_by_itself() {
    check_eq!(dma::repeat(DEVICE, PAGE, 0xbad, 10), Ok(()), "repetition");
    let mut seen = 0;
    for _ in 0..2000 {
        let _ = (write64(PAGE, 0), cpu::cpuid(0, 0));
        seen += u32::from(read64(PAGE) == Ok(0xbad));
    }
    check_eq!(dma::repeat(DEVICE, PAGE, 0xbad, 0), Ok(()), "no more");
    let (stores, blocked) = dma::counts().unwrap_or_default();
    check!(stores > 10 && blocked == 0, "{stores} stores, {blocked} of them blocked, {seen} seen");
    check_eq!(write64(PAGE, 0), Ok(()), "memory");
    for _ in 0..2000 {
        let _ = cpu::cpuid(0, 0);
    }
    check_eq!(read64(PAGE), Ok(0), "behind the last");
}

fn is_blocked(unit: u64) {
    check_eq!(write64(unit + ROOT_TABLE, ROOT), Ok(()), "the root table's register");
    command(unit, 1 << 30);
    command(unit, 1 << 31);
    check_eq!(dma::store(DEVICE, PAGE, 0xbad), Ok(false), "a store that is blocked");
    check_eq!(read64(PAGE), Ok(0), "what it leaves");
    check_eq!(read32(unit + FAULT_STATUS).map(|status| status & 2), Ok(2), "a fault is pending");
    let record = unit + (read64(unit + 8).unwrap_or(0) >> 24 & 0x3ff) * 16;
    check_eq!(read64(record), Ok(PAGE), "where");
    let about = u64::from(DEVICE) | ROOT_NOT_PRESENT << 32 | 1 << 63;
    check_eq!(read64(record + 8), Ok(about), "who, and why");
    check_eq!(dma::fetch(DEVICE, PAGE), Ok(None), "a fetch that is blocked");
    check_eq!(write32(unit + GLOBAL_COMMAND, 0), Ok(()), "off");
    check_eq!(dma::store(DEVICE, PAGE, 0xbad), Ok(true), "as before");
}

/// Sets a bit of the global command register, and sees that its status follows.
fn command(unit: u64, bit: u32) {
    let status = read32(unit + GLOBAL_STATUS).unwrap_or(0) & 0x96ff_ffff;
    check_eq!(write32(unit + GLOBAL_COMMAND, status | bit), Ok(()), "a command");
    check_eq!(read32(unit + GLOBAL_STATUS).map(|now| now & bit), Ok(bit), "its status");
}
