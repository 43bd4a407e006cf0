//! What the firmware says of DMA remapping: told in the log, and heeded where the hypervisor's place is chosen.
//!
//! No unit is driven yet: devices reach all memory.

use arrayvec::ArrayVec;
use log::{debug, info, warn};
use platform::acpi::dmar::{Dmar, DmarError, Drhd, Rmrr, Structure};
use platform::acpi::{self, Table};
use platform::e820::{MemoryMap, MemoryMapError};
use platform::physical::ReadPhysical;

/// Tables that are told of once each; root tables name the same one, as a rule.
const TOLD_ONCE: usize = 4;

/// Tells of the units, and gives `map` without the memory that devices go on using (RMRR): firmware has to call it
/// reserved, and some forgets.
///
/// # Errors
///
/// [`MemoryMapError::TooMany`] where it makes more ranges than fit.
pub fn memory_without_reserved(
    memory: &impl ReadPhysical,
    map: &MemoryMap,
) -> Result<MemoryMap, MemoryMapError> {
    let mut reported = Reported { map: map.clone(), units: 0, seen: ArrayVec::new(), result: Ok(()) };
    acpi::find_all(memory, b"DMAR", |table| match table {
        Ok(table) => reported.add(memory, &table),
        Err(error) => warn!("a DMAR cannot be used ({error:?})"),
    });
    info!("remapping_units={}; devices are not restricted, and reach all memory", reported.units);
    reported.result.map(|()| reported.map)
}

/// What was found so far.
struct Reported {
    map: MemoryMap,
    units: usize,
    /// Addresses of tables that were told of.
    seen: ArrayVec<u64, TOLD_ONCE>,
    result: Result<(), MemoryMapError>,
}

impl Reported {
    fn add(&mut self, memory: &impl ReadPhysical, table: &Table) {
        if self.seen.contains(&table.address) {
            return;
        }
        // A table too many is told of again, which is all.
        let _ = self.seen.try_push(table.address);
        match Dmar::read(memory, table) {
            Ok(dmar) => {
                let (bits, flags) = (dmar.host_address_bits, dmar.flags);
                debug!(
                    "dmar address={:#x} host_address_bits={bits} flags={:#x}",
                    table.address,
                    flags.bits()
                );
                for structure in dmar.structures(memory) {
                    self.add_structure(memory, structure);
                }
            }
            Err(error) => damaged(error),
        }
    }

    fn add_structure(&mut self, memory: &impl ReadPhysical, structure: Result<Structure, DmarError>) {
        let structure = match structure {
            Ok(structure) => structure,
            Err(error) => return damaged(error),
        };
        match &structure {
            Structure::Drhd(unit) => self.add_unit(unit),
            Structure::Rmrr(reserved) => self.keep_clear(reserved),
            _ => {}
        }
        let devices = structure.scopes().map(|scopes| scopes.devices(memory));
        devices.into_iter().flatten().filter_map(Result::err).for_each(damaged);
    }

    fn add_unit(&mut self, unit: &Drhd) {
        self.units += 1;
        let rest = if unit.is_for_all { " has all other devices of its segment" } else { "" };
        info!("remapping unit base={:#x} segment={}{rest}", unit.register_base, unit.segment);
    }

    fn keep_clear(&mut self, reserved: &Rmrr) {
        let mut map = self.map.clone();
        self.result = self.result.and(map.hide(reserved.pages()));
        if map != self.map {
            let (base, limit) = (reserved.base, reserved.limit);
            warn!(
                "devices use {base:#x} to {limit:#x}, by the memory map usable; the hypervisor keeps clear of it"
            );
        }
        self.map = map;
    }
}

fn damaged(error: DmarError) {
    warn!("the ACPI table DMAR is damaged: {error}");
}

#[cfg(test)]
#[path = "remapping_tests.rs"]
mod tests;
