//! What tables have to be like for every unit of a machine to walk them.

use x86::address::GIB;
use x86::paging::{PageSize, entry_bytes};

use crate::capability::{Capability, ExtendedCapability, LEVELS};

/// The form of tables that units share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Levels of second-level tables.
    pub levels: u8,
    /// Largest page.
    pub largest: PageSize,
    /// Some unit does not look into caches: what is written to a table is written back.
    pub writes_back: bool,
}

/// Pages to keep beside those of tables without a hole, for holes to be made: 2 MiB of them.
pub const SPARE_PAGES: u64 = 512;

/// No number of levels serves every unit and reaches all of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoCommonWidth;

impl Shape {
    /// The form by which all of `units` reach memory up to `end`: as few levels and as large pages as every one can.
    ///
    /// # Errors
    ///
    /// [`NoCommonWidth`].
    pub fn common(
        units: impl Iterator<Item = (Capability, ExtendedCapability)> + Clone,
        end: u64,
    ) -> Result<Self, NoCommonWidth> {
        let serves = |&levels: &u8| {
            end <= ENTRIES * entry_bytes(levels)
                && units.clone().all(|(capability, _)| capability.has_levels(levels))
        };
        let levels = LEVELS.clone().find(serves).ok_or(NoCommonWidth)?;
        let largest = units.clone().map(|(capability, _)| capability.largest_page()).min();
        let writes_back =
            units.clone().any(|(_, extended)| !extended.contains(ExtendedCapability::COHERENT_WALKS));
        Ok(Self { levels, largest: largest.unwrap_or_default(), writes_back })
    }
}

impl Shape {
    /// The first address that tables of this form do not cover, of a machine whose memory ends at `memory_end`: all
    /// that a PC has below 4 GiB, whole GiB, and beyond them what costs no table more.
    #[must_use]
    pub const fn reach(self, memory_end: u64) -> u64 {
        let end = if memory_end > 4 * GIB { memory_end } else { 4 * GIB };
        let step = match self.largest {
            PageSize::Size1G => ENTRIES * GIB,
            _ => GIB,
        };
        end.next_multiple_of(step)
    }

    /// Pages of tables by which all below `end`, whole GiB, is mapped without a hole: the root's and the contexts' too.
    #[must_use]
    pub fn pages(self, end: u64) -> u64 {
        let tables = |level| end.div_ceil(ENTRIES * entry_bytes(level));
        2 + (self.largest.level()..=self.levels).map(tables).sum::<u64>()
    }
}

/// Entries of a table, as a factor of what one covers.
const ENTRIES: u64 = x86::paging::ENTRIES as u64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::Model;

    fn common(models: &[Model], end: u64) -> Result<Shape, NoCommonWidth> {
        let words = |model: &Model| {
            let (capability, extended) = (model.capability(), model.extended());
            (Capability::from_bits_retain(capability), ExtendedCapability::from_bits_retain(extended))
        };
        Shape::common(models.iter().map(words), end)
    }

    #[test]
    fn all_of_memory_is_reached_and_more_where_it_costs_nothing() {
        let shape = |largest| Shape { levels: 4, largest, writes_back: false };
        let [small, medium, large] = [PageSize::Size4K, PageSize::Size2M, PageSize::Size1G].map(shape);
        assert_eq!(small.reach(GIB), 4 * GIB);
        assert_eq!(medium.reach(4 * GIB + 1), 5 * GIB);
        assert_eq!(large.reach(4 * GIB), 512 * GIB);
        assert_eq!(large.reach(512 * GIB + 1), 1024 * GIB);
        assert_eq!(large.pages(512 * GIB), 4);
        assert_eq!(large.pages(1024 * GIB), 5);
        assert_eq!(medium.pages(16 * GIB), 4 + 16);
        assert_eq!(small.pages(16 * GIB), 4 + 16 + 16 * 512);
        assert_eq!(Shape { levels: 3, ..medium }.pages(5 * GIB), 3 + 5);
    }

    #[test]
    fn the_least_able_unit_decides() {
        const ALL: Model = Model { widths: 14, ..Model::MODERN };
        let two_levels = Model { widths: 6, large_pages: 1, ..Model::MODERN };
        let shape = |levels, largest, writes_back| Ok(Shape { levels, largest, writes_back });
        assert_eq!(common(&[ALL], 1 << 39), shape(3, PageSize::Size1G, false));
        assert_eq!(common(&[ALL], (1 << 39) + 1), shape(4, PageSize::Size1G, false));
        assert_eq!(common(&[ALL], (1 << 48) + 1), shape(5, PageSize::Size1G, false));
        assert_eq!(common(&[ALL, two_levels], 1 << 39), shape(3, PageSize::Size2M, false));
        assert_eq!(common(&[Model::MODERN, two_levels], 1 << 30), shape(4, PageSize::Size2M, false));
        assert_eq!(common(&[ALL, Model::OLD], 1 << 39), shape(3, PageSize::Size4K, true));
        assert_eq!(common(&[Model::MODERN, Model::OLD], 1 << 30), Err(NoCommonWidth));
        assert_eq!(common(&[Model::OLD], (1 << 39) + 1), Err(NoCommonWidth));
    }
}
