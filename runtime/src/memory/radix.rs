//! The walker over second-level tables: four levels of 512 entries, in any format.
//!
//! Other processors walk the same tables meanwhile. So every change of an entry is one 64-bit write, a new
//! table is complete before it is linked, a page is split into a table that says the same, and a dropped
//! table keeps its content until they have flushed. A dropped mapping is only a miss: whoever needs it faults
//! and has it filled again.

mod split;

use core::marker::PhantomData;

use hw::PhysMemory;
use x86::address::HostPhysAddr;
use x86::paging::{Attributes, ENTRIES, Entry, PageSize, TableFormat, entry_bytes, index};

use super::frame::{Exhausted, Frames};
use super::range::GuestRange;

const TOP_LEVEL: u8 = 4;

/// A table walk at work.
pub(super) struct Radix<'a, M, F> {
    pub(super) memory: &'a M,
    pub(super) frames: &'a mut Frames,
    /// Largest page that may be mapped.
    pub(super) largest: PageSize,
    /// The frame that decoy pages are mapped to, each by an entry of its own.
    pub(super) decoy: HostPhysAddr,
    /// Table frames in use.
    pub(super) tables: &'a mut usize,
    /// Set where processors may hold a translation that the tables no longer give.
    pub(super) is_stale: bool,
    pub(super) format: PhantomData<F>,
}

/// What a range is to become.
#[derive(Clone, Copy)]
struct Job {
    target: Option<Attributes>,
    /// `None` leaves empty entries empty. Else they are filled, and a table of pages that is made anew is
    /// filled over this range at once: one miss then serves its neighbours too.
    around: Option<GuestRange>,
}

/// An entry on the way: where it is, and the part of its block that the job is about.
#[derive(Clone, Copy)]
struct Place {
    slot: HostPhysAddr,
    level: u8,
    part: GuestRange,
}

impl Place {
    fn block(self) -> GuestRange {
        GuestRange::block(self.part.start(), entry_bytes(self.level))
    }
}

impl<M: PhysMemory, F: TableFormat> Radix<'_, M, F> {
    /// Makes an empty root table.
    pub(super) fn make_root(&mut self) -> Result<HostPhysAddr, Exhausted> {
        self.make_table()
    }

    /// Maps every page of `range` with `attributes`, as large as they fit; `around` contains `range` and is
    /// to be mapped alike.
    ///
    /// On [`Exhausted`] part of the range may be mapped.
    pub(super) fn fill(
        &mut self,
        root: HostPhysAddr,
        range: GuestRange,
        attributes: Attributes,
        around: GuestRange,
    ) -> Result<(), Exhausted> {
        self.start(root, range, &Job { target: Some(attributes), around: Some(around) })
    }

    /// Makes what tables hold for `range` agree with `target`, or hold nothing.
    pub(super) fn update(&mut self, root: HostPhysAddr, range: GuestRange, target: Option<Attributes>) {
        let done = self.start(root, range, &Job { target, around: None });
        debug_assert!(done.is_ok(), "an update needs no frames");
    }

    /// Empties `root`; what its entries led to is the caller's to put aside.
    pub(super) fn empty(&self, root: HostPhysAddr) {
        for at in (0..ENTRIES as u64).map(|entry| entry * entry_bytes(TOP_LEVEL)) {
            let slot = slot(root, at, TOP_LEVEL);
            if self.memory.read_u64(slot) != 0 {
                self.memory.write_u64(slot, 0);
            }
        }
    }

    /// Drops all tables under `root`, and `root`.
    pub(super) fn remove(&mut self, root: HostPhysAddr) {
        self.is_stale = true;
        self.retire(root, TOP_LEVEL);
    }

    /// Goes straight down to the lowest table that holds all of `range`: mostly it has the one entry to change.
    fn start(&mut self, root: HostPhysAddr, range: GuestRange, job: &Job) -> Result<(), Exhausted> {
        let (mut table, mut level) = (root, TOP_LEVEL);
        loop {
            let block = GuestRange::block(range.start(), entry_bytes(level));
            if block == range || !block.contains(range) {
                break;
            }
            match F::decode(self.memory.read_u64(slot(table, range.start(), level)), level) {
                Entry::Table(next) => (table, level) = (next, level - 1),
                Entry::Empty | Entry::Leaf { .. } => break,
            }
        }
        self.visit(table, level, range, job)
    }

    fn visit(
        &mut self,
        table: HostPhysAddr,
        level: u8,
        range: GuestRange,
        job: &Job,
    ) -> Result<(), Exhausted> {
        let bytes = entry_bytes(level);
        let mut at = range.start();
        while at < range.end() {
            let rest = GuestRange::between(at, range.end());
            let next = match (job.target, self.leading_pages(rest, level)) {
                (Some(attributes), Some(pages)) if level == 1 || !attributes.is_decoy => {
                    self.map_pages(table, pages, level, attributes, job.around.is_some());
                    pages.end()
                }
                _ => {
                    let next = ((at | (bytes - 1)) + 1).min(range.end());
                    let place =
                        Place { slot: slot(table, at, level), level, part: GuestRange::between(at, next) };
                    self.visit_entry(place, job)?;
                    next
                }
            };
            at = next;
        }
        Ok(())
    }

    /// Returns the pages of tables of `level` that `range` begins with, where it does and such pages may be.
    fn leading_pages(&self, range: GuestRange, level: u8) -> Option<GuestRange> {
        if level > self.largest.level() {
            return None;
        }
        range.blocks_inside(entry_bytes(level)).filter(|pages| pages.start() == range.start())
    }

    /// Maps whole pages by entries of one table; empty ones stay so unless `is_fill`.
    fn map_pages(
        &mut self,
        table: HostPhysAddr,
        pages: GuestRange,
        level: u8,
        attributes: Attributes,
        is_fill: bool,
    ) {
        let bytes = entry_bytes(level);
        let mut slot = slot(table, pages.start(), level);
        let mut at = pages.start();
        while at < pages.end() {
            let old = self.memory.read_u64(slot);
            let page = if attributes.is_decoy { self.decoy } else { HostPhysAddr::new(at) };
            let new = F::leaf(page, size(level), attributes);
            if old == 0 && is_fill {
                self.memory.write_u64(slot, new);
            } else if old != 0 && old != new {
                self.replace(Place { slot, level, part: GuestRange::block(at, bytes) }, old, new);
            }
            slot = HostPhysAddr::new(slot.get() + 8);
            at += bytes;
        }
    }

    fn visit_entry(&mut self, place: Place, job: &Job) -> Result<(), Exhausted> {
        let old = self.memory.read_u64(place.slot);
        let is_whole = place.part.end() - place.part.start() == entry_bytes(place.level);
        if is_whole && job.target.is_none() {
            self.replace(place, old, 0);
            return Ok(());
        }
        self.descend(place, old, job)
    }

    /// Writes an entry that stands for its whole block, and drops what was there.
    fn replace(&mut self, place: Place, old: u64, new: u64) {
        if old == new {
            return;
        }
        // The entry before the table that it led to is retired: no walk that begins from here on finds that table.
        self.memory.write_u64(place.slot, new);
        match F::decode(old, place.level) {
            Entry::Empty => {}
            Entry::Leaf { attributes, .. } => self.is_stale |= !is_widened::<F>(attributes, new, place.level),
            Entry::Table(table) => {
                self.is_stale = true;
                self.retire(table, place.level - 1);
            }
        }
    }

    /// Goes on in the table of the next level, made where it is missing and wanted.
    fn descend(&mut self, place: Place, old: u64, job: &Job) -> Result<(), Exhausted> {
        let level = place.level - 1;
        match F::decode(old, place.level) {
            Entry::Table(table) => self.visit(table, level, place.part, job),
            Entry::Leaf { attributes, .. } if job.target == Some(attributes) => Ok(()),
            Entry::Leaf { attributes, .. } => match self.split(place, attributes) {
                Ok(table) => self.visit(table, level, place.part, job),
                // No frame to split with: a miss for the whole page is correct, if slower.
                Err(Exhausted) => {
                    self.replace(place, old, 0);
                    self.descend(place, 0, job)
                }
            },
            Entry::Empty => match job.around {
                Some(around) => self.extend(place, job, around),
                None => Ok(()),
            },
        }
    }

    /// Fills an empty entry with a table for the part that is wanted.
    fn extend(&mut self, place: Place, job: &Job, around: GuestRange) -> Result<(), Exhausted> {
        let table = self.make_table()?;
        let level = place.level - 1;
        // Only where all that is wanted are pages of the new table, so that no table is made for neighbours.
        let part = match self.leading_pages(place.part, level) {
            Some(pages) if pages == place.part => around
                .intersection(place.block())
                .and_then(|neighbours| neighbours.blocks_inside(entry_bytes(level)))
                .unwrap_or(pages),
            _ => place.part,
        };
        // Filled before it is linked, as other processors walk what is linked at once.
        let result = self.visit(table, level, part, job);
        // However far the filling came, what it wrote is true.
        self.memory.write_u64(place.slot, F::table(table));
        result
    }

    fn make_table(&mut self) -> Result<HostPhysAddr, Exhausted> {
        let table = self.frames.allocate_table(self.memory)?;
        *self.tables += 1;
        Ok(table)
    }

    /// Puts an unlinked table of `level`, and all under it, aside until processors have flushed.
    fn retire(&mut self, table: HostPhysAddr, level: u8) {
        if level > 1 {
            for at in (0..ENTRIES as u64).map(|entry| entry * entry_bytes(level)) {
                let entry = self.memory.read_u64(slot(table, at, level));
                if let Entry::Table(child) = F::decode(entry, level) {
                    self.retire(child, level - 1);
                }
            }
        }
        self.frames.retire(table);
        *self.tables -= 1;
    }
}

/// Returns where tables under `root` map `address`: the page, its size and attributes.
pub(super) fn translate<F: TableFormat>(
    memory: &impl PhysMemory,
    root: HostPhysAddr,
    address: u64,
) -> Option<(HostPhysAddr, PageSize, Attributes)> {
    let mut table = root;
    for level in (1..=TOP_LEVEL).rev() {
        match F::decode(memory.read_u64(slot(table, address, level)), level) {
            Entry::Empty => return None,
            Entry::Table(next) => table = next,
            Entry::Leaf { page, attributes } => return Some((page, size(level), attributes)),
        }
    }
    None
}

/// What the entry `new` allows, `old` did too or less: a processor that still holds `old` faults at worst, and
/// that fault drops the stale translation.
fn is_widened<F: TableFormat>(old: Attributes, new: u64, level: u8) -> bool {
    match F::decode(new, level) {
        Entry::Leaf { attributes, .. } => {
            attributes.is_decoy == old.is_decoy
                && attributes.memory_type == old.memory_type
                && attributes.rights.contains(old.rights)
        }
        _ => false,
    }
}

fn size(level: u8) -> PageSize {
    match level {
        1 => PageSize::Size4K,
        2 => PageSize::Size2M,
        _ => PageSize::Size1G,
    }
}

fn slot(table: HostPhysAddr, address: u64, level: u8) -> HostPhysAddr {
    HostPhysAddr::new(table.get() + 8 * index(address, level) as u64)
}

#[cfg(test)]
#[path = "radix_tests.rs"]
mod tests;
