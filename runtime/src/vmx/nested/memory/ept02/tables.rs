//! The tables under one root: maps pages, drops them, drops tables.
//!
//! Other processors walk them meanwhile: an entry changes by one 64-bit write, and a table that an entry no
//! longer references keeps its content. An entry that is missing is only a miss.

use super::filter::Filter;
use super::pool::{Place, Pool, slots};
use hw::PhysMemory;
use x86::address::HostPhysAddr;
use x86::paging::{PageSize, entry_bytes, index};
use x86::vmx::ept_entry::EptEntry;

const TOP_LEVEL: u8 = 4;

/// No frame is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::vmx) struct Exhausted;

/// Tables, all of them in frames of one pool.
#[derive(Debug)]
pub(super) struct Tables<M> {
    pub(super) memory: M,
    pub(super) pool: Pool,
    /// Pages of L1's memory that tables may map.
    pub(super) filter: Filter,
}

impl<M: PhysMemory> Tables<M> {
    /// Makes `leaf` the entry of `table`, which has pages of `size`, for the page around `gpa`; `page` is where it
    /// lies in L1's memory.
    pub(super) fn set(&mut self, table: HostPhysAddr, gpa: u64, size: PageSize, leaf: EptEntry, page: u64) {
        self.note_pages(table, page, page + size.bytes());
        self.filter.note(page, size);
        let slot = slot(table, gpa, size.level());
        let old = EptEntry(self.memory.read_u64(slot));
        if old != leaf {
            // The reference goes first: no walk can then reach a table that a later flush makes free.
            self.memory.write_u64(slot, leaf.0);
            self.drop_below(old, size.level());
        }
    }

    /// Notes in `table` which pages of L1's memory it is about to map.
    pub(super) fn note_pages(&mut self, table: HostPhysAddr, start: u64, end: u64) {
        self.pool.table(table).note_pages(start, end);
    }

    /// Makes `leaves` entries of `table`, of the lowest level, from that for `gpa` on; where there is none, the entry
    /// stays as it is.
    pub(super) fn set_line(&mut self, table: HostPhysAddr, gpa: u64, leaves: &[Option<EptEntry>]) {
        let mut slot = slot(table, gpa, 1);
        for leaf in leaves {
            if let Some(leaf) = leaf {
                self.filter.note(leaf.address(PageSize::Size4K), PageSize::Size4K);
                self.memory.write_u64(slot, leaf.0);
            }
            slot = HostPhysAddr::new(slot.get() + 8);
        }
    }

    /// Returns the table whose entries map pages of `size`, made where it is missing.
    pub(super) fn table_for(
        &mut self,
        root: HostPhysAddr,
        gpa: u64,
        size: PageSize,
    ) -> Result<HostPhysAddr, Exhausted> {
        let mut table = root;
        for level in (size.level() + 1..=TOP_LEVEL).rev() {
            let slot = slot(table, gpa, level);
            let entry = EptEntry(self.memory.read_u64(slot));
            if entry.is_present() && !entry.is_leaf(level) {
                table = HostPhysAddr::new(entry.address(PageSize::Size4K));
                continue;
            }
            if self.pool.below_roots() == 0 {
                // No page is mapped.
                self.filter.refresh();
            }
            // A large page that is smaller now: all of it is missed, and comes back page by page.
            let place = Place::Under { parent: table, slot: slot_number(gpa, level) };
            table = self.pool.take(&self.memory, place).ok_or(Exhausted)?;
            // Once the table is empty: a walk may follow the reference at once.
            self.memory.write_u64(slot, EptEntry::table(table.get()).0);
        }
        Ok(table)
    }

    /// Drops the page around `gpa`.
    pub(super) fn unmap(&mut self, root: HostPhysAddr, gpa: u64) {
        if let Some((slot, ..)) = self.find(root, gpa) {
            self.memory.write_u64(slot, 0);
        }
    }

    /// Returns the entry that maps `gpa`, where it is, and its level.
    pub(super) fn find(&self, root: HostPhysAddr, gpa: u64) -> Option<(HostPhysAddr, EptEntry, u8)> {
        let mut table = root;
        for level in (1..=TOP_LEVEL).rev() {
            let slot = slot(table, gpa, level);
            let entry = EptEntry(self.memory.read_u64(slot));
            match (entry.is_present(), entry.is_leaf(level)) {
                (false, _) => return None,
                (true, true) => return Some((slot, entry, level)),
                (true, false) => table = HostPhysAddr::new(entry.address(PageSize::Size4K)),
            }
        }
        None
    }

    /// Drops every table below the root in `frame`.
    pub(super) fn clear_root(&mut self, frame: HostPhysAddr) {
        for slot in slots(frame) {
            if self.pool.table(frame).count() == 1 {
                break;
            }
            let entry = EptEntry(self.memory.read_u64(slot));
            if entry.is_present() {
                self.memory.write_u64(slot, 0);
                self.drop_below(entry, TOP_LEVEL);
            }
        }
    }

    /// Drops the table in `frame`, with all below it; a root too.
    pub(super) fn drop_table(&mut self, frame: HostPhysAddr) {
        if let Some(slot) = self.pool.entry_of(frame) {
            self.memory.write_u64(slot, 0);
        }
        self.pool.drop_table(frame);
    }

    /// Drops the table in `frame`, and those above it that it leaves empty; the root stays.
    pub(super) fn drop_branch(&mut self, mut frame: HostPhysAddr) {
        while let Some(entry) = self.pool.entry_of(frame) {
            let above = entry.page();
            let table = *self.pool.table(above);
            let is_only = table.count() == self.pool.table(frame).count() + 1 && !table.may_map_any();
            if !is_only || self.pool.entry_of(above).is_none() {
                self.drop_table(frame);
                return;
            }
            frame = above;
        }
    }

    /// Drops the pages of `table` that `is_gone` says of, each given by its address in the machine's memory and its
    /// size in bytes.
    pub(super) fn drop_pages(&mut self, table: HostPhysAddr, level: u8, is_gone: impl Fn(u64, u64) -> bool) {
        let bytes = entry_bytes(level);
        for slot in slots(table) {
            let entry = EptEntry(self.memory.read_u64(slot));
            if entry.is_present()
                && entry.is_leaf(level)
                && is_gone(entry.address(PageSize::Size4K) & !(bytes - 1), bytes)
            {
                self.memory.write_u64(slot, 0);
            }
        }
    }

    /// Drops the table that `entry`, of a table of `level`, referenced until now.
    fn drop_below(&mut self, entry: EptEntry, level: u8) {
        if entry.is_present() && !entry.is_leaf(level) {
            self.pool.drop_table(HostPhysAddr::new(entry.address(PageSize::Size4K)));
        }
    }
}

fn slot(table: HostPhysAddr, gpa: u64, level: u8) -> HostPhysAddr {
    HostPhysAddr::new(table.get() + 8 * index(gpa, level) as u64)
}

#[expect(clippy::cast_possible_truncation, reason = "an index is below 512")]
const fn slot_number(gpa: u64, level: u8) -> u16 {
    index(gpa, level) as u16
}
