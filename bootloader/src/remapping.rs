//! What the firmware says of DMA remapping: told in the log, and heeded where the hypervisor's place is chosen.
//!
//! No unit is driven yet: devices reach all memory.

use core::fmt;

use arrayvec::ArrayVec;
use log::{debug, info, warn};
use platform::acpi::dmar::{Dmar, DmarError, Drhd, Rmrr, Structure};
use platform::acpi::{self, Table};
use platform::e820::{MemoryMap, MemoryMapError};
use platform::physical::ReadPhysical;
use vtd::capability::{Capability, LEVELS};
use vtd::offset::CAPABILITY;

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
            Structure::Drhd(unit) => self.add_unit(memory, unit),
            Structure::Rmrr(reserved) => self.keep_clear(reserved),
            _ => {}
        }
        let devices = structure.scopes().map(|scopes| scopes.devices(memory));
        devices.into_iter().flatten().filter_map(Result::err).for_each(damaged);
    }

    fn add_unit(&mut self, memory: &impl ReadPhysical, unit: &Drhd) {
        self.units += 1;
        let (base, segment) = (unit.register_base, unit.segment);
        let rest = if unit.is_for_all { ", has all other devices of its segment" } else { "" };
        match capability(memory, base) {
            Some(capability) => {
                let (levels, bits) = (Levels(capability), capability.address_bits());
                let page = capability.largest_page().bytes() >> 10;
                info!(
                    "remapping unit base={base:#x} segment={segment} levels={levels} address_bits={bits} page_kib={page}{rest}"
                );
            }
            None => warn!("remapping unit base={base:#x} segment={segment} does not answer{rest}"),
        }
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

/// What the unit whose registers are at `base` says of itself; `None` where none answers.
fn capability(memory: &impl ReadPhysical, base: u64) -> Option<Capability> {
    let register = |offset: u16| memory.read_register(base + u64::from(offset)).ok();
    let [low, high] = [register(CAPABILITY)?, register(CAPABILITY + 4)?].map(u64::from);
    let capability = high << 32 | low;
    (capability != 0 && capability != u64::MAX).then(|| Capability::from_bits_retain(capability))
}

/// The numbers of levels that a unit's tables may have.
struct Levels(Capability);

impl fmt::Display for Levels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for levels in LEVELS.filter(|&levels| self.0.has_levels(levels)) {
            write!(f, "{separator}{levels}")?;
            separator = ",";
        }
        if separator.is_empty() { f.write_str("none") } else { Ok(()) }
    }
}

fn damaged(error: DmarError) {
    warn!("the ACPI table DMAR is damaged: {error}");
}

#[cfg(test)]
#[path = "remapping_tests.rs"]
mod tests;
