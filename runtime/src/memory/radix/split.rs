//! Splitting a page of second-level tables.

use super::{Place, Radix, size};
use crate::memory::frame::Exhausted;
use hw::PhysMemory;
use x86::address::HostPhysAddr;
use x86::paging::{Attributes, PAGE_BYTES, TableFormat, entry_bytes};

impl<M: PhysMemory, F: TableFormat> Radix<'_, M, F> {
    /// Replaces a page by a table of smaller ones that says the same.
    pub(super) fn split(&mut self, place: Place, attributes: Attributes) -> Result<HostPhysAddr, Exhausted> {
        let table = self.make_table()?;
        let level = place.level - 1;
        let mut entry = F::leaf(HostPhysAddr::new(place.block().start()), size(level), attributes);
        let mut entries = [0; PAGE_BYTES];
        for slot in entries.as_chunks_mut().0 {
            *slot = entry.to_le_bytes();
            entry += entry_bytes(level);
        }
        self.memory.write(table, &entries);
        // Only now: until the entry is written other processors walk through the page, behind it through the table.
        self.memory.write_u64(place.slot, F::table(table));
        Ok(table)
    }
}
