//! DMA-remapping hardware as the firmware reports it (Intel Virtualization Technology for Directed I/O, "DMA Remapping
//! Reporting Structure").
//!
//! Each part is checked by itself, and what is wrong with one costs no other, as far as it can be found: a unit whose
//! list of devices is damaged is a unit, and the memory behind it is somebody's.

mod device_scope;
mod fault;
mod part;
mod structure;

pub use device_scope::{DeviceScope, DeviceScopes, Hop, Path, ScopeKind, Scopes};
pub use fault::{DmarError, Fault};
pub use structure::{Andd, Atsr, Drhd, Name, Rhsa, Rmrr, Satc, Sidp, Structure};

use bitflags::bitflags;

use super::Table;
use crate::physical::ReadPhysical;
use part::Part;

/// Offsets in the table, in bytes.
const HOST_ADDRESS_WIDTH: u64 = 36;
const FLAGS: u64 = 37;
const STRUCTURES: u64 = 48;
/// Bytes that every structure starts with: type and length.
const STRUCTURE_HEADER: u64 = 4;
/// Widths that address pages at all, and fit a 64-bit address.
const WIDTHS: core::ops::RangeInclusive<u16> = 13..=64;

bitflags! {
    /// Flags of the table.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct DmarFlags: u8 {
        /// INTR_REMAP: the platform supports interrupt remapping.
        const INTERRUPT_REMAPPING = 1 << 0;
        /// X2APIC_OPT_OUT: the firmware asks that x2APIC mode be left alone.
        const X2APIC_OPT_OUT = 1 << 1;
        /// DMA_CTRL_PLATFORM_OPT_IN_FLAG: the firmware lets no device write memory before the system drives the units.
        const PLATFORM_OPT_IN = 1 << 2;
        /// What later revisions may say.
        const _ = !0;
    }
}

/// The table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dmar {
    table: Table,
    /// Bits of the addresses that DMA of this platform can have.
    pub host_address_bits: u16,
    /// Its flags.
    pub flags: DmarFlags,
}

impl Dmar {
    /// Reads what stands before the structures.
    ///
    /// # Errors
    ///
    /// [`DmarError`] where there is no room for it, or it cannot be read.
    pub fn read(memory: &impl ReadPhysical, table: &Table) -> Result<Self, DmarError> {
        let wrong = |fault| DmarError { offset: 0, kind: None, fault };
        if table.length < STRUCTURES {
            return Err(wrong(Fault::Short));
        }
        let address = table.address.saturating_add(HOST_ADDRESS_WIDTH);
        let [width, flags] = memory.read_array(address).map_err(|_| wrong(Fault::Unreadable))?;
        const { assert!(FLAGS == HOST_ADDRESS_WIDTH + 1) };
        let (host_address_bits, flags) = (u16::from(width) + 1, DmarFlags::from_bits_retain(flags));
        Ok(Self { table: *table, host_address_bits, flags })
    }

    /// The structures in the table's order, and what is wrong with the table; each error is told where it stands.
    /// Behind a structure whose length is impossible there are no more.
    pub fn structures<'a, M: ReadPhysical>(
        &self,
        memory: &'a M,
    ) -> impl Iterator<Item = Result<Structure, DmarError>> + use<'a, M> {
        let fault = Fault::HostAddressWidth(self.host_address_bits);
        let width = (!WIDTHS.contains(&self.host_address_bits)).then_some(Err(DmarError {
            offset: HOST_ADDRESS_WIDTH,
            kind: None,
            fault,
        }));
        width.into_iter().chain(Structures { memory, table: self.table, at: STRUCTURES })
    }
}

/// A walk over the structures.
struct Structures<'a, M> {
    memory: &'a M,
    table: Table,
    /// Offset of the next structure.
    at: u64,
}

impl<M: ReadPhysical> Structures<'_, M> {
    /// The structure that comes next, with its type.
    fn part(&self) -> Result<(u16, Part), DmarError> {
        let wrong = |kind, fault| DmarError { offset: self.at, kind, fault };
        let left = self.table.length - self.at;
        if left < STRUCTURE_HEADER {
            return Err(wrong(None, Fault::Rest(left)));
        }
        let [kind, length] = [0, 2].map(|offset| self.memory.read_u16(self.table.address + self.at + offset));
        let kind = kind.map_err(|_| wrong(None, Fault::Unreadable))?;
        let length = length.map_err(|_| wrong(Some(kind), Fault::Unreadable))?;
        if u64::from(length) > left || u64::from(length) < Structure::least_length(kind) {
            return Err(wrong(Some(kind), Fault::Length(length)));
        }
        Ok((kind, Part { table: self.table.address, at: self.at, end: self.at + u64::from(length) }))
    }
}

impl<M: ReadPhysical> Iterator for Structures<'_, M> {
    type Item = Result<Structure, DmarError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.table.length {
            return None;
        }
        let offset = self.at;
        match self.part() {
            Ok((kind, part)) => {
                self.at = part.end;
                let wrong = |fault| DmarError { offset, kind: Some(kind), fault };
                Some(Structure::read(self.memory, kind, part).map_err(wrong))
            }
            Err(error) => {
                self.at = self.table.length;
                Some(Err(error))
            }
        }
    }
}

/// Walks all of a table of any bytes, and stops where what is told cannot be.
///
/// # Panics
///
/// Where the walk tells of more than the bytes can hold, or of a fault behind them.
#[cfg(any(test, fuzzing))]
pub fn check_any(body: &[u8]) {
    let memory = Bytes(body);
    let length = body.len() as u64;
    let table = Table { address: 0, length, signature: *b"DMAR", is_sum_right: true };
    let Ok(dmar) = Dmar::read(&memory, &table) else { return };
    let mut told = 0;
    for result in dmar.structures(&memory) {
        told += 1;
        match result {
            Ok(structure) => {
                let scopes = structure.scopes().map(|scopes| scopes.devices(&memory));
                for scope in scopes.into_iter().flatten() {
                    let offset = scope.map_or_else(|error| error.offset, |_| 0);
                    assert!(offset < length, "a fault at {offset:#x} of {length:#x}");
                    told += 1;
                }
            }
            Err(error) => assert!(error.offset < length, "{error} of {length:#x}"),
        }
    }
    assert!(told <= length, "{told} things of {length} bytes");
}

/// Memory that begins with these bytes and ends with them.
#[cfg(any(test, fuzzing))]
struct Bytes<'a>(&'a [u8]);

#[cfg(any(test, fuzzing))]
impl ReadPhysical for Bytes<'_> {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), crate::physical::Unreadable> {
        let there = usize::try_from(address).ok().and_then(|start| self.0.get(start..)?.get(..bytes.len()));
        bytes.copy_from_slice(there.ok_or(crate::physical::Unreadable)?);
        Ok(())
    }
}

#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod round_trip_tests;
#[cfg(test)]
mod table_bytes;
