//! What maps the pages of PALs in their processes: entries of page tables, by their addresses. The tables are watched, so
//! that an entry that comes to map something else is noticed.

use crate::layout::PAGE;
use crate::machine::Leaf;
use crate::page_map::PageMap;
use crate::places::Places;
use crate::quota::{Accounts, Amounts};
use trustvisor::status::Status;

/// Entries that map pages of PALs, and the tables that they are in.
#[derive(Debug)]
pub(crate) struct Mappings {
    entries: PageMap<Entry>,
    tables: Places,
}

#[derive(Debug)]
struct Entry {
    leaf: Leaf,
    /// Pages of PALs that it maps.
    count: u32,
}

/// Why an entry is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The process is told.
    Status(Status),
    /// It mapped something else before, which is still to be noticed.
    Outdated,
}

impl From<Status> for Refused {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

const ONE_TABLE: Amounts = Amounts { pals: 0, pages: 0, runs: 0, regions: 0, tables: 1, bytes: 0 };

impl Mappings {
    pub(crate) const fn new() -> Self {
        Self { entries: PageMap::new(), tables: Places::new(ONE_TABLE) }
    }

    /// Takes the memory for as much as `limit` says.
    pub(crate) fn start(&mut self, limit: Amounts, random: u64) -> Result<(), Status> {
        self.entries.start(limit.pages, random).map_err(|_| Status::OUT_OF_MEMORY)?;
        self.tables.start(limit.tables, random)
    }

    /// `leaf` maps one page more, of a PAL of `space`.
    ///
    /// # Errors
    ///
    /// See [`Refused`]; nothing changed then.
    pub(crate) fn enter(&mut self, leaf: Leaf, accounts: &mut Accounts, space: u64) -> Result<(), Refused> {
        if let Some(entry) = self.entries.get_mut(leaf.at) {
            if entry.leaf != leaf {
                return Err(Refused::Outdated);
            }
            entry.count += 1;
            return Ok(());
        }
        self.tables.enter(leaf.table(), accounts, space)?;
        if self.entries.insert(leaf.at, Entry { leaf, count: 1 }).is_err() {
            self.tables.leave(leaf.table(), accounts);
            return Err(Status::OUT_OF_MEMORY.into());
        }
        Ok(())
    }

    /// The entry at `at` maps one page less. Returns its table where nothing of that is left to be watched.
    pub(crate) fn leave(&mut self, at: u64, accounts: &mut Accounts) -> Option<u64> {
        let entry = self.entries.get_mut(at)?;
        entry.count -= 1;
        if entry.count != 0 {
            return None;
        }
        let table = self.entries.remove(at)?.leaf.table();
        self.tables.leave(table, accounts).then_some(table)
    }

    /// Returns whether some entry of the table at `table` maps a page of a PAL.
    pub(crate) fn is_table(&self, table: u64) -> bool {
        self.tables.is_used(table)
    }

    /// Returns the first entry from the address `from` on, in the table that this is in.
    pub(crate) fn next(&self, from: u64) -> Option<Leaf> {
        let end = (from & !(PAGE - 1)) + PAGE;
        (from..end).step_by(4).find_map(|at| self.entries.get(at).map(|entry| entry.leaf))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::LeafKind;

    const LIMIT: Amounts = Amounts { pals: 8, pages: 8, runs: 8, regions: 8, tables: 4, bytes: 8 };

    fn leaf(at: u64, base: u64) -> Leaf {
        Leaf { at, value: base | 1, kind: LeafKind::Page64 }
    }

    fn mappings() -> (Mappings, Accounts) {
        let (mut mappings, mut accounts) = (Mappings::new(), Accounts::new());
        assert_eq!((mappings.start(LIMIT, 7), accounts.start(LIMIT)), (Ok(()), Ok(())));
        (mappings, accounts)
    }

    #[test]
    fn a_table_is_given_up_with_the_last_page_that_it_maps() {
        let (mut mappings, mut accounts) = mappings();
        let entries = [leaf(0x5000, 0x1000), leaf(0x5ff8, 0x2000), leaf(0x5ff8, 0x2000)];
        for entry in entries {
            assert_eq!(mappings.enter(entry, &mut accounts, 1), Ok(()));
        }
        assert_eq!((mappings.is_table(0x5000), accounts.taken().tables), (true, 1));
        assert_eq!(mappings.next(0x5000), Some(entries[0]));
        assert_eq!(mappings.next(0x5008), Some(entries[1]));
        assert_eq!((mappings.next(0x5ffc), mappings.next(0x6000)), (None, None));
        assert_eq!(mappings.leave(0x5ff8, &mut accounts), None);
        assert_eq!(mappings.leave(0x5000, &mut accounts), None);
        assert_eq!(mappings.leave(0x5ff8, &mut accounts), Some(0x5000));
        assert_eq!(mappings.leave(0x5ff8, &mut accounts), None);
        assert_eq!((mappings.is_table(0x5000), accounts.taken()), (false, Amounts::default()));
    }

    #[test]
    fn an_entry_that_maps_something_else_is_told() {
        let (mut mappings, mut accounts) = mappings();
        assert_eq!(mappings.enter(leaf(0x5000, 0x1000), &mut accounts, 1), Ok(()));
        assert_eq!(mappings.enter(leaf(0x5000, 0x3000), &mut accounts, 1), Err(Refused::Outdated));
        assert_eq!(mappings.enter(leaf(0x6000, 0x4000), &mut accounts, 1), Ok(()));
        assert_eq!(mappings.enter(leaf(0x7000, 0x5000), &mut accounts, 1), Ok(()));
        let refused = mappings.enter(leaf(0x8000, 0x6000), &mut accounts, 1);
        assert_eq!((refused, mappings.is_table(0x8000)), (Err(Status::QUOTA.into()), false));
    }
}
