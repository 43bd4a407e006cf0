//! What the firmware says of DMA remapping: told in the log, heeded where the hypervisor's place is chosen, and decided
//! on whether devices are to be kept from memory.

use core::fmt;

use arrayvec::ArrayVec;
use log::{debug, info, warn};
use platform::acpi::dmar::{Dmar, DmarError, Drhd, Rmrr, Structure};
use platform::acpi::{self, Table};
use platform::command_line::DeviceProtection;
use platform::e820::{MemoryMap, MemoryMapError};
use platform::handoff::{PhysRange, UNIT_CAPACITY};
use platform::physical::ReadPhysical;
use vtd::capability::{Capability, ExtendedCapability, LEVELS};
use vtd::offset::{CAPABILITY, EXTENDED_CAPABILITY};
use vtd::shape::{NoCommonWidth, SPARE_PAGES, Shape};
use x86::paging::PAGE_SIZE;

/// Tables that are told of once each; root tables name the same one, as a rule.
const TOLD_ONCE: usize = 4;

/// What comes of the firmware's tables.
#[derive(Clone, Debug)]
pub struct Survey {
    /// The memory map without the memory that devices go on using (RMRR): firmware has to call it reserved, and some
    /// forgets.
    pub free: MemoryMap,
    /// Registers of the units that are to be driven; none where devices are not to be held.
    pub units: ArrayVec<PhysRange, UNIT_CAPACITY>,
    /// Memory for the tables that units walk.
    pub pool_bytes: u64,
}

/// Why devices cannot be kept from memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unprotected {
    /// The firmware tells of no unit.
    NoUnit,
    /// What it tells of a unit is damaged.
    Damaged,
    /// The registers of the unit at this address do not answer.
    Silent(u64),
    /// There are more than [`UNIT_CAPACITY`].
    TooMany,
    /// No tables suit all units.
    Width,
}

/// Why the tables that the firmware left stop the boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SurveyError {
    /// What is reserved makes more ranges than fit.
    MemoryMap(MemoryMapError),
    /// `dmap=require` is on the command line.
    Unprotected(Unprotected),
}

/// Tells of the units, and decides whether they are to be driven, as the command line wants it.
///
/// # Errors
///
/// [`SurveyError`].
pub fn survey(
    memory: &impl ReadPhysical,
    map: &MemoryMap,
    wanted: DeviceProtection,
) -> Result<Survey, SurveyError> {
    let mut reported = Reported {
        map: map.clone(),
        units: 0,
        usable: ArrayVec::new(),
        obstacle: None,
        seen: ArrayVec::new(),
        result: Ok(()),
    };
    acpi::find_all(memory, b"DMAR", |table| match table {
        Ok(table) => reported.add(memory, &table),
        Err(error) => {
            reported.obstacle = Some(Unprotected::Damaged);
            warn!("a DMAR cannot be used ({error:?})");
        }
    });
    reported.result.map_err(SurveyError::MemoryMap)?;
    let pool = match wanted {
        DeviceProtection::Off => None,
        DeviceProtection::On | DeviceProtection::Require => Some(reported.pool_bytes(map)),
    };
    let count = reported.units;
    let pool_bytes = match pool {
        Some(Ok(bytes)) => bytes,
        Some(Err(why)) if wanted == DeviceProtection::Require => return Err(SurveyError::Unprotected(why)),
        Some(Err(Unprotected::NoUnit)) | None => {
            info!("remapping_units={count}; devices are not restricted, and reach all memory");
            return Ok(Survey { free: reported.map, units: ArrayVec::new(), pool_bytes: 0 });
        }
        Some(Err(why)) => {
            warn!("remapping_units={count}; devices are not restricted, and reach all memory: {why}");
            return Ok(Survey { free: reported.map, units: ArrayVec::new(), pool_bytes: 0 });
        }
    };
    info!("remapping_units={count}; devices are kept from the hypervisor");
    let units = reported.usable.iter().map(|unit| unit.registers).collect();
    Ok(Survey { free: reported.map, units, pool_bytes })
}

/// A unit that answers.
#[derive(Debug)]
struct UsableUnit {
    registers: PhysRange,
    capability: Capability,
    extended: ExtendedCapability,
}

/// What was found so far.
struct Reported {
    map: MemoryMap,
    units: usize,
    usable: ArrayVec<UsableUnit, UNIT_CAPACITY>,
    /// Why not every device can be held.
    obstacle: Option<Unprotected>,
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
            Err(error) => {
                self.obstacle = Some(Unprotected::Damaged);
                damaged(error);
            }
        }
    }

    /// Bytes of memory for tables by which all units keep devices from the hypervisor.
    fn pool_bytes(&self, map: &MemoryMap) -> Result<u64, Unprotected> {
        if let Some(obstacle) = self.obstacle {
            return Err(obstacle);
        }
        if self.usable.is_empty() {
            return Err(Unprotected::NoUnit);
        }
        let memory_end = map.usable().map(|range| range.base + range.length).max().unwrap_or(0);
        let words = self.usable.iter().map(|unit| (unit.capability, unit.extended));
        let shape = Shape::common(words, memory_end).map_err(|NoCommonWidth| Unprotected::Width)?;
        Ok((shape.pages(shape.reach(memory_end)) + SPARE_PAGES) * PAGE_SIZE)
    }

    fn add_structure(&mut self, memory: &impl ReadPhysical, structure: Result<Structure, DmarError>) {
        let structure = match structure {
            Ok(structure) => structure,
            Err(error) => {
                // It may have been a unit, whose devices nobody would hold.
                self.obstacle = Some(Unprotected::Damaged);
                return damaged(error);
            }
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
        let capability = register(memory, base, CAPABILITY).map(Capability::from_bits_retain);
        let extended = register(memory, base, EXTENDED_CAPABILITY).unwrap_or(0);
        match capability {
            Some(capability) => {
                self.use_unit(UsableUnit {
                    registers: PhysRange { base, length: unit.register_bytes },
                    capability,
                    extended: ExtendedCapability::from_bits_retain(extended),
                });
                let (levels, bits) = (Levels(capability), capability.address_bits());
                let page = capability.largest_page().bytes() >> 10;
                info!(
                    "remapping unit base={base:#x} segment={segment} levels={levels} address_bits={bits} page_kib={page}{rest}"
                );
            }
            None => {
                self.obstacle = Some(Unprotected::Silent(base));
                warn!("remapping unit base={base:#x} segment={segment} does not answer{rest}");
            }
        }
    }

    fn use_unit(&mut self, unit: UsableUnit) {
        // Tables that differ may both name it.
        if self.usable.iter().any(|other| other.registers.base == unit.registers.base) {
            return;
        }
        if self.usable.try_push(unit).is_err() {
            self.obstacle = Some(Unprotected::TooMany);
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

/// A 64-bit register of the unit whose registers are at `base`; `None` where none answers.
fn register(memory: &impl ReadPhysical, base: u64, offset: u16) -> Option<u64> {
    let half = |offset: u16| memory.read_register(base + u64::from(offset)).ok().map(u64::from);
    let value = half(offset + 4)? << 32 | half(offset)?;
    (value != 0 && value != u64::MAX).then_some(value)
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

impl fmt::Display for Unprotected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoUnit => f.write_str("the firmware tells of no remapping unit"),
            Self::Damaged => f.write_str("the firmware's table of remapping units is damaged"),
            Self::Silent(base) => write!(f, "the remapping unit at {base:#x} does not answer"),
            Self::TooMany => write!(f, "there are more than {UNIT_CAPACITY} remapping units"),
            Self::Width => f.write_str("no tables suit all remapping units"),
        }
    }
}

fn damaged(error: DmarError) {
    warn!("the ACPI table DMAR is damaged: {error}");
}

#[cfg(test)]
#[path = "remapping_tests.rs"]
mod tests;
