//! Units that remap DMA, driven together by tables that are the same for all of them.

use core::fmt;

use arrayvec::ArrayVec;
use hw::bare::device::DeviceRegisters;
use platform::handoff::{Handoff, MemoryRange, PhysRange, UNIT_CAPACITY, USABLE};
use spin::{Mutex, MutexGuard};
use vtd::device_tables::{self, DeviceTables, Stale, TablesError};
use vtd::frames::{FrameState, Frames};
use vtd::shape::{NoCommonWidth, SPARE_PAGES, Shape};
use vtd::unit::{Unit, UnitError};
use vtd::{DomainId, Registers, TableMemory};
use x86::address::HostPhysAddr;
use x86::paging::PAGE_SIZE;

use super::{DeviceAccess, HardwareFault, Remapping};
use crate::machine::{self, RegionMemory};
use crate::memory::host;
use crate::memory::second_level::ProtectError;

/// Most pages that tables have: 16 GiB of memory behind a unit that has pages of 4 KiB alone.
const PAGES: usize = 12 << 10;
/// The one domain; some units keep the first for what is not there.
const DOMAIN: DomainId = DomainId(1);
/// Reads of a register before a unit is called dead: about a second.
const PATIENCE: u32 = 1_000_000;

/// Closes the hypervisor's memory to every device, by the units that the handoff names; gives nothing where it names none,
/// or where that fails, and says why.
///
/// # Panics
///
/// It fails, and the boot's command line has `dmap=require`.
pub(crate) fn start(handoff: &'static Handoff) -> Option<&'static mut dyn Remapping> {
    static REMAPPING: Mutex<Option<Units>> = Mutex::new(None);
    if handoff.remapping_units().is_empty() {
        return None;
    }
    match Units::start(handoff) {
        Ok(units) => Some(MutexGuard::leak(REMAPPING.lock()).insert(units)),
        Err(error) if handoff.device_protection_required != 0 => {
            panic!("devices cannot be kept from memory: {error}; say dmap=on to boot all the same")
        }
        Err(error) => {
            log::warn!("devices reach all memory: {error}");
            None
        }
    }
}

/// Why devices cannot be held.
#[derive(Debug)]
enum Refused {
    /// A unit, by the address of its registers.
    Unit(u64, UnitError),
    /// No tables suit all units.
    Width,
    /// Tables take more pages than there is room for.
    Pages(u64),
    /// Tables cannot be made.
    Tables(TablesError),
}

type UnitList = ArrayVec<Unit<UnitRegisters, RegionMemory>, UNIT_CAPACITY>;

/// Units, and the tables that they walk.
struct Units {
    tables: DeviceTables<'static, RegionMemory>,
    units: &'static mut UnitList,
    /// What units have not followed yet.
    stale: Option<Stale>,
    spare: usize,
}

impl Units {
    /// Closes the hypervisor's memory to every device.
    fn start(handoff: &'static Handoff) -> Result<Self, Refused> {
        /// What each page of the tables is.
        static STATES: Mutex<[FrameState; PAGES]> = Mutex::new([FrameState::Free; PAGES]);
        /// Too large for the stack.
        static UNITS: Mutex<UnitList> = Mutex::new(ArrayVec::new_const());
        let units = MutexGuard::leak(UNITS.lock());
        for (index, registers) in handoff.remapping_units().iter().enumerate() {
            units.push(take(index, *registers)?);
        }
        let capabilities =
            units.iter().map(|unit: &Unit<_, _>| (unit.capability(), unit.extended_capability()));
        let memory_end = memory_end(handoff.memory_map());
        let shape = Shape::common(capabilities, memory_end).map_err(|NoCommonWidth| Refused::Width)?;
        let end = shape.reach(memory_end);
        let wanted = shape.pages(end) + SPARE_PAGES;
        let count =
            usize::try_from(wanted).ok().filter(|&count| count <= PAGES).ok_or(Refused::Pages(wanted))?;
        let base = machine::with_frame_run(count);
        let frames = Frames::new(base, &mut MutexGuard::leak(STATES.lock())[..count]);
        let mut tables =
            DeviceTables::new(RegionMemory, frames, shape, DOMAIN, end).map_err(Refused::Tables)?;
        let closed = device_tables::DeviceAccess::Closed;
        for place in handoff.remapping_units().iter().chain([&handoff.region]) {
            // No unit walks them yet.
            let _stale =
                tables.set(place.base, place.base + place.length, closed).map_err(Refused::Tables)?;
        }
        for (unit, registers) in units.iter_mut().zip(handoff.remapping_units()) {
            hold(unit, tables.root_table()).map_err(|error| Refused::Unit(registers.base, error))?;
        }
        let spare = count - tables.pages();
        Ok(Self { tables, units, stale: None, spare })
    }
}

impl Remapping for Units {
    fn closed_regions_limit(&self) -> usize {
        // A table of small pages each, and one of those of 2 MiB where no other is in the same GiB.
        self.spare / 2
    }

    fn set_access(&mut self, page: HostPhysAddr, access: DeviceAccess) -> Result<(), ProtectError> {
        let access = match access {
            DeviceAccess::Open => device_tables::DeviceAccess::Open,
            DeviceAccess::Closed => device_tables::DeviceAccess::Closed,
        };
        let start = page.page().get();
        let stale = self.tables.set(start, start + PAGE_SIZE, access).map_err(|error| match error {
            TablesError::Range => ProtectError::OutOfReach,
            TablesError::Exhausted => ProtectError::Exhausted,
        })?;
        self.stale = Some(match self.stale.take() {
            Some(before) => before.and(stale),
            None => stale,
        });
        Ok(())
    }

    fn flush(&mut self) -> Result<(), HardwareFault> {
        match self.stale.take() {
            Some(stale) => self.tables.follow(self.units, stale).map_err(HardwareFault),
            None => Ok(()),
        }
    }

    fn tell_faults(&self) {
        for unit in self.units.iter() {
            let drained = unit.drain_faults(|fault| log::warn!("refused device={fault}"));
            match drained {
                Ok(drained) if drained.is_more => {
                    log::warn!("more was refused than the unit has records for")
                }
                Ok(_) => {}
                Err(error) => log::error!("a remapping unit: {error}"),
            }
        }
    }
}

impl fmt::Debug for Units {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Units").field("units", &self.units.len()).finish_non_exhaustive()
    }
}

impl fmt::Display for Units {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "remapping_units={} table_pages={}", self.units.len(), self.tables.pages())
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unit(base, error) => write!(f, "the remapping unit at {base:#x}: {error}"),
            Self::Width => f.write_str("no tables suit all remapping units"),
            Self::Pages(pages) => write!(f, "tables take {pages} pages, of {PAGES} at most"),
            Self::Tables(error) => write!(f, "no tables can be made ({error:?})"),
        }
    }
}

/// Registers of a unit.
#[derive(Debug)]
struct UnitRegisters(DeviceRegisters);

impl Registers for UnitRegisters {
    fn read_u32(&self, offset: u16) -> u32 {
        self.0.read_u32(offset.into())
    }

    fn write_u32(&self, offset: u16, value: u32) {
        self.0.write_u32(offset.into(), value);
    }

    fn read_u64(&self, offset: u16) -> u64 {
        self.0.read_u64(offset.into())
    }

    fn write_u64(&self, offset: u16, value: u64) {
        self.0.write_u64(offset.into(), value);
    }
}

impl TableMemory for RegionMemory {
    fn write_back(&self, address: HostPhysAddr, bytes: u64) {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        machine::region().write_back(address, bytes);
    }
}

/// Takes over unit `index`, whose registers are at `place`.
fn take(index: usize, place: PhysRange) -> Result<Unit<UnitRegisters, RegionMemory>, Refused> {
    let refused = |error| Refused::Unit(place.base, error);
    let registers = machine::with_frames(|frames| host::map_unit(index, place, frames));
    let unit = Unit::new(UnitRegisters(registers), RegionMemory).map_err(refused)?;
    let mut unit = unit.with_patience(PATIENCE);
    unit.take_over().map_err(refused)?;
    Ok(unit)
}

/// Has a unit go by the tables at `root`.
fn hold(unit: &mut Unit<UnitRegisters, RegionMemory>, root: HostPhysAddr) -> Result<(), UnitError> {
    unit.set_root_table(root)?;
    unit.enable_translation()?;
    // Behind it: what the bootloader protected is closed by tables now, without a moment in between.
    unit.release_protected_memory()
}

/// The first address behind all memory of the machine's map.
fn memory_end(map: &[MemoryRange]) -> u64 {
    let usable = map.iter().filter(|range| range.kind == USABLE);
    usable.map(|range| range.base.saturating_add(range.length)).max().unwrap_or(0)
}
