//! The tables that all devices go by: memory as it is, with holes.
//!
//! Decision: not the walker that the runtime maps the guest's memory with. That one fills tables as processors miss,
//! and where it lacks a page it drops a mapping, which the next miss makes again. A device that misses is refused for
//! good: here all memory is mapped from the start, what cannot be done is not begun, and a range that is opened again
//! folds its tables, so that registering and giving back PALs for years takes no more pages than the first did.

use x86::address::HostPhysAddr;
use x86::paging::{ENTRIES, PAGE_SIZE, PageSize, entry_bytes, index};

use crate::command::Translations;
use crate::entry::{ContextEntry, ENTRY_BYTES, RootEntry, SecondLevelEntry, Target};
use crate::frames::{Exhausted, FrameState, Frames};
use crate::shape::Shape;
use crate::unit::{Unit, UnitError};
use crate::{DomainId, Registers, TableMemory};

/// Pages that are invalidated one by one at most, as a power of two; more are by their domain.
const LARGEST_MASK: u8 = 9;

/// Whether devices reach a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceAccess {
    /// They read and write it.
    Open,
    /// They do nothing there.
    Closed,
}

/// Why a range was not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TablesError {
    /// It is no range of whole pages, or goes beyond what the tables cover.
    Range,
    /// There are too few pages for the tables that it takes. Nothing was changed.
    Exhausted,
}

/// Units may still go by what was before: [`DeviceTables::follow`] ends that.
#[must_use = "until units follow, devices go by what was before"]
#[derive(Debug, PartialEq, Eq)]
pub struct Stale {
    /// What units have to forget.
    pub translations: Translations,
}

impl Stale {
    /// What units have to forget behind this change and another of the same tables.
    pub fn and(self, other: Self) -> Self {
        let translations = match self.translations {
            _ if self == other => self.translations,
            Translations::Domain(domain) | Translations::Pages { domain, .. } => Translations::Domain(domain),
            Translations::All => Translations::All,
        };
        Self { translations }
    }
}

/// Root table, one context table for every bus, and one second level for every device.
#[derive(Debug)]
pub struct DeviceTables<'a, M> {
    memory: M,
    frames: Frames<'a>,
    shape: Shape,
    domain: DomainId,
    /// First address that the tables do not cover.
    end: u64,
    root_table: HostPhysAddr,
    second_level: HostPhysAddr,
}

/// An entry on the way.
#[derive(Clone, Copy)]
struct Place {
    slot: HostPhysAddr,
    level: u8,
    /// First address that it covers.
    block: u64,
}

impl<'a, M: TableMemory> DeviceTables<'a, M> {
    /// Makes tables by which every device reaches all memory below `end`, in `domain`.
    ///
    /// # Errors
    ///
    /// [`TablesError`].
    pub fn new(
        memory: M,
        frames: Frames<'a>,
        shape: Shape,
        domain: DomainId,
        end: u64,
    ) -> Result<Self, TablesError> {
        if !end.is_multiple_of(PAGE_SIZE) || end > ENTRIES as u64 * entry_bytes(shape.levels) {
            return Err(TablesError::Range);
        }
        let none = HostPhysAddr::new(0);
        let mut this = Self { memory, frames, shape, domain, end, root_table: none, second_level: none };
        this.second_level = this.make_table(|_| 0)?;
        this.fill(this.second_level, shape.levels, 0)?;
        let ContextEntry(context) = ContextEntry::new(this.second_level, shape.levels, domain);
        let contexts = this.make_table(|word| context[word % 2])?;
        let RootEntry(root) = RootEntry::new(contexts);
        const { assert!(ENTRY_BYTES == 16) };
        this.root_table = this.make_table(|word| root[word % 2])?;
        Ok(this)
    }

    /// What units start their walks from.
    #[must_use]
    pub const fn root_table(&self) -> HostPhysAddr {
        self.root_table
    }

    /// Pages that tables take.
    #[must_use]
    pub fn pages(&self) -> usize {
        self.frames.count(FrameState::Table)
    }

    /// Opens or closes a range of whole pages: its first address, and the first behind it.
    ///
    /// # Errors
    ///
    /// [`TablesError`]; nothing was changed.
    pub fn set(&mut self, start: u64, end: u64, access: DeviceAccess) -> Result<Stale, TablesError> {
        if start >= end || end > self.end || !(start | end).is_multiple_of(PAGE_SIZE) {
            return Err(TablesError::Range);
        }
        if self.tables_to_split(start, access) + self.tables_to_split(end, access)
            > self.frames.count(FrameState::Free)
        {
            return Err(TablesError::Exhausted);
        }
        self.visit(self.second_level, self.shape.levels, start, end, access)?;
        Ok(Stale { translations: self.translations(start, end) })
    }

    /// Returns when no device goes by what was before, behind any of `units`: all that walk these tables.
    ///
    /// # Errors
    ///
    /// [`UnitError`]: what was before may hold.
    pub fn follow<R: Registers, N: TableMemory>(
        &mut self,
        units: &mut [Unit<R, N>],
        stale: Stale,
    ) -> Result<(), UnitError> {
        // What is kept of a table that went is about more than the range.
        let is_folded = self.frames.count(FrameState::Retired) != 0;
        let which = if is_folded { Translations::Domain(self.domain) } else { stale.translations };
        for unit in units {
            unit.follow_tables(which)?;
        }
        self.frames.free_retired();
        Ok(())
    }

    /// Fills a new table of `level`, whose first entry covers `from`, with all memory below the end.
    fn fill(&mut self, table: HostPhysAddr, level: u8, from: u64) -> Result<(), TablesError> {
        let bytes = entry_bytes(level);
        let end = self.end.min(from + ENTRIES as u64 * bytes);
        for block in (from..end).step_by(usize::try_from(bytes).unwrap_or(usize::MAX)) {
            let entry = if level <= self.shape.largest.level() && block + bytes <= self.end {
                leaf(block, level)
            } else {
                let next = self.make_table(|_| 0)?;
                self.fill(next, level - 1, block)?;
                SecondLevelEntry::table(next).bits()
            };
            self.write(slot(table, block, level), entry);
        }
        Ok(())
    }

    /// Tables that it takes for an entry to begin at `border`.
    fn tables_to_split(&self, border: u64, access: DeviceAccess) -> usize {
        let (mut table, mut level) = (self.second_level, self.shape.levels);
        while !border.is_multiple_of(entry_bytes(level)) {
            match self.entry(slot(table, border, level)).target(level) {
                Target::Table(next) => (table, level) = (next, level - 1),
                target if (target == Target::Nothing) == (access == DeviceAccess::Closed) => return 0,
                _ => {
                    return (1..level)
                        .filter(|&below| !border.is_multiple_of(entry_bytes(below + 1)))
                        .count();
                }
            }
        }
        0
    }

    fn visit(
        &mut self,
        table: HostPhysAddr,
        level: u8,
        start: u64,
        end: u64,
        access: DeviceAccess,
    ) -> Result<(), Exhausted> {
        let bytes = entry_bytes(level);
        let mut at = start;
        while at < end {
            let block = at / bytes * bytes;
            let next = (block + bytes).min(end);
            let place = Place { slot: slot(table, at, level), level, block };
            if at == block && next == block + bytes && level <= self.shape.largest.level() {
                self.replace(place, access);
            } else {
                self.visit_part(place, at, next, access)?;
            }
            at = next;
        }
        Ok(())
    }

    /// Makes an entry stand for its whole block, and retires what was under it.
    fn replace(&mut self, place: Place, access: DeviceAccess) {
        let old = self.entry(place.slot).target(place.level);
        self.write(place.slot, uniform(place.block, place.level, access));
        if let Target::Table(table) = old {
            self.retire(table, place.level - 1);
        }
    }

    /// Changes a part of what an entry covers, in a table that is made if the entry has none, and folded if it has no
    /// use.
    fn visit_part(
        &mut self,
        place: Place,
        start: u64,
        end: u64,
        access: DeviceAccess,
    ) -> Result<(), Exhausted> {
        let below = place.level - 1;
        let table = match self.entry(place.slot).target(place.level) {
            Target::Table(table) => table,
            target => {
                let old = match target {
                    Target::Nothing => DeviceAccess::Closed,
                    _ => DeviceAccess::Open,
                };
                if old == access {
                    return Ok(());
                }
                let bytes = entry_bytes(below);
                let of_entry = |entry| uniform(place.block + entry as u64 * bytes, below, old);
                // It says the same, and is complete before units find it.
                let table = self.make_table(of_entry)?;
                self.write(place.slot, SecondLevelEntry::table(table).bits());
                table
            }
        };
        self.visit(table, below, start, end, access)?;
        let is_uniform = |entry: usize| {
            let address = place.block + entry as u64 * entry_bytes(below);
            self.entry(slot(table, address, below)).bits() == uniform(address, below, access)
        };
        if place.level <= self.shape.largest.level() && (0..ENTRIES).all(is_uniform) {
            self.replace(place, access);
        }
        Ok(())
    }

    fn retire(&mut self, table: HostPhysAddr, level: u8) {
        if level > 1 {
            for entry in 0..ENTRIES as u64 {
                let slot = HostPhysAddr::new(table.get() + 8 * entry);
                if let Target::Table(below) = self.entry(slot).target(level) {
                    self.retire(below, level - 1);
                }
            }
        }
        self.frames.retire(table);
    }

    /// Makes a table whose words are these, and which units can see.
    fn make_table(&mut self, word: impl Fn(usize) -> u64) -> Result<HostPhysAddr, Exhausted> {
        let table = self.frames.allocate()?;
        for (slot, index) in (table.get()..).step_by(8).zip(0..ENTRIES) {
            self.memory.write_u64(HostPhysAddr::new(slot), word(index));
        }
        if self.shape.writes_back {
            self.memory.write_back(table, PAGE_SIZE);
        }
        Ok(table)
    }

    fn entry(&self, slot: HostPhysAddr) -> SecondLevelEntry {
        SecondLevelEntry::from_bits_retain(self.memory.read_u64(slot))
    }

    fn write(&self, slot: HostPhysAddr, entry: u64) {
        self.memory.write_u64(slot, entry);
        if self.shape.writes_back {
            self.memory.write_back(slot, 8);
        }
    }

    /// What units have to forget of a range.
    fn translations(&self, start: u64, end: u64) -> Translations {
        let domain = self.domain;
        let [first, last] = [start, end - 1].map(|address| address / PAGE_SIZE);
        let mask = (0..=LARGEST_MASK).find(|mask| first >> mask == last >> mask);
        match mask {
            Some(mask) => Translations::Pages { domain, address: (first >> mask << mask) * PAGE_SIZE, mask },
            None => Translations::Domain(domain),
        }
    }
}

impl From<Exhausted> for TablesError {
    fn from(_: Exhausted) -> Self {
        Self::Exhausted
    }
}

/// The entry of `level` that makes its whole block, from `block` on, open or closed.
fn uniform(block: u64, level: u8, access: DeviceAccess) -> u64 {
    match access {
        DeviceAccess::Open => leaf(block, level),
        DeviceAccess::Closed => 0,
    }
}

fn leaf(page: u64, level: u8) -> u64 {
    let size = match level {
        1 => PageSize::Size4K,
        2 => PageSize::Size2M,
        _ => PageSize::Size1G,
    };
    // Snooping is between the guest and its devices, as without us.
    SecondLevelEntry::page(HostPhysAddr::new(page), size, false).bits()
}

fn slot(table: HostPhysAddr, address: u64, level: u8) -> HostPhysAddr {
    HostPhysAddr::new(table.get() + 8 * index(address, level) as u64)
}

#[cfg(test)]
#[path = "device_tables_tests.rs"]
mod tests;
