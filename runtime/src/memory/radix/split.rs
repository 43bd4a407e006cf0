//! Splitting a page of second-level tables.

use super::{Job, Place, Radix};
use crate::memory::frame::Exhausted;
use hw::PhysMemory;
use x86::address::HostPhysAddr;
use x86::paging::{Attributes, TableFormat};

impl<M: PhysMemory, F: TableFormat> Radix<'_, M, F> {
    /// Replaces a page by a table of smaller ones that says the same.
    pub(super) fn split(&mut self, place: Place, attributes: Attributes) -> Result<HostPhysAddr, Exhausted> {
        let table = self.make_table()?;
        let job = Job { target: Some(attributes), around: Some(place.block()) };
        self.visit(table, place.level - 1, place.block(), &job)?;
        // Only now: until the entry is written other processors walk through the page, behind it through the table.
        self.memory.write_u64(place.slot, F::table(table));
        Ok(table)
    }
}
