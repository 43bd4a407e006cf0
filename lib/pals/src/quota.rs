//! What PALs take of the hypervisor, and how much of it one address space may.

use crate::fallible::reserved;
use crate::layout::Layout;
use alloc::vec::Vec;
use trustvisor::status::Status;

/// Of the heap, beside the addresses of its pages.
const BYTES_A_SECTION: usize = 96;
const BYTES_A_PARAMETER: usize = 16;
const BYTES_A_PAGE: usize = 8;
/// A signed header, with its verification.
const BYTES_OF_SIGNING: usize = crate::signing::CLAIM_BYTES;
/// What the allocator needs around a block.
const BYTES_A_BLOCK: usize = 64;

/// Amounts of what there is little of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amounts {
    /// PALs.
    pub pals: usize,
    /// Pages.
    pub pages: usize,
    /// Runs of pages that follow each other in memory: each is a range with rights of its own.
    pub runs: usize,
    /// Aligned 2 MiB of memory with a page in them: each is mapped by small pages.
    pub regions: usize,
    /// Bytes of the heap.
    pub bytes: usize,
}

impl Amounts {
    /// Returns what a PAL with these lists takes, but for runs and regions, which show when its pages are found.
    #[must_use]
    pub fn of(layout: &Layout) -> Self {
        let pages = layout.all_sections().map(|section| usize::try_from(section.count).unwrap_or(usize::MAX));
        let pages = pages.fold(0, usize::saturating_add);
        let bytes = layout.all_sections().count() * BYTES_A_SECTION
            + layout.parameters.len() * BYTES_A_PARAMETER
            + BYTES_A_BLOCK
            + if layout.is_signed { BYTES_OF_SIGNING + BYTES_A_BLOCK } else { 0 };
        Self {
            pals: 1,
            pages,
            runs: 0,
            regions: 0,
            bytes: pages.saturating_mul(BYTES_A_PAGE).saturating_add(bytes),
        }
    }

    /// Both together.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self {
            pals: self.pals.saturating_add(other.pals),
            pages: self.pages.saturating_add(other.pages),
            runs: self.runs.saturating_add(other.runs),
            regions: self.regions.saturating_add(other.regions),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }

    /// Returns the first without the second.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self {
            pals: self.pals.saturating_sub(other.pals),
            pages: self.pages.saturating_sub(other.pages),
            runs: self.runs.saturating_sub(other.runs),
            regions: self.regions.saturating_sub(other.regions),
            bytes: self.bytes.saturating_sub(other.bytes),
        }
    }

    /// Three quarters: what one address space may take. The rest is always somebody else's.
    #[must_use]
    pub const fn quota(self) -> Self {
        Self {
            pals: self.pals / 4 * 3,
            pages: self.pages / 4 * 3,
            runs: self.runs / 4 * 3,
            regions: self.regions / 4 * 3,
            bytes: self.bytes / 4 * 3,
        }
    }

    const fn fits(self, limit: Self) -> bool {
        self.pals <= limit.pals
            && self.pages <= limit.pages
            && self.runs <= limit.runs
            && self.regions <= limit.regions
            && self.bytes <= limit.bytes
    }
}

/// Who has taken how much.
#[derive(Debug)]
pub(crate) struct Accounts {
    limit: Amounts,
    taken: Amounts,
    /// By address space, in ascending order; as many as there can be PALs, and regions that count for somebody who has
    /// no PAL any more.
    spaces: Vec<(u64, Amounts)>,
}

impl Accounts {
    /// Nothing may be taken.
    pub(crate) const fn new() -> Self {
        let none = Amounts { pals: 0, pages: 0, runs: 0, regions: 0, bytes: 0 };
        Self { limit: none, taken: none, spaces: Vec::new() }
    }

    /// Takes the memory for accounts up to `limit`.
    pub(crate) fn start(&mut self, limit: Amounts) -> Result<(), Status> {
        self.spaces = reserved(limit.pals.saturating_add(limit.regions))?;
        self.limit = limit;
        Ok(())
    }

    /// Writes `more` down for an address space; the first of an address space has a PAL in it.
    ///
    /// # Errors
    ///
    /// [`Status::OUT_OF_MEMORY`] or [`Status::QUOTA`]; nothing changed then.
    pub(crate) fn take(&mut self, space: u64, more: Amounts) -> Result<(), Status> {
        let all = self.taken.and(more);
        if !all.fits(self.limit) {
            return Err(Status::OUT_OF_MEMORY);
        }
        match self.spaces.binary_search_by_key(&space, |account| account.0) {
            Ok(index) => {
                let own = self.spaces[index].1.and(more);
                if !own.fits(self.limit.quota()) {
                    return Err(Status::QUOTA);
                }
                self.spaces[index].1 = own;
            }
            Err(index) => {
                if !more.fits(self.limit.quota()) {
                    return Err(Status::QUOTA);
                }
                if self.spaces.len() == self.spaces.capacity() {
                    return Err(Status::OUT_OF_MEMORY);
                }
                #[expect(clippy::disallowed_methods, reason = "there is room")]
                self.spaces.insert(index, (space, more));
            }
        }
        self.taken = all;
        Ok(())
    }

    /// Gives `less` of an address space's back.
    pub(crate) fn give_back(&mut self, space: u64, less: Amounts) {
        self.taken = self.taken.without(less);
        if let Ok(index) = self.spaces.binary_search_by_key(&space, |account| account.0) {
            self.spaces[index].1 = self.spaces[index].1.without(less);
            let left = self.spaces[index].1;
            if left.pals == 0 && left.regions == 0 {
                self.spaces.remove(index);
            }
        }
    }

    /// Returns what all have taken together.
    #[cfg(test)]
    pub(crate) const fn taken(&self) -> Amounts {
        self.taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Amounts = Amounts { pals: 8, pages: 80, runs: 40, regions: 40, bytes: 4000 };

    fn accounts() -> Accounts {
        let mut accounts = Accounts::new();
        assert_eq!(accounts.take(1, Amounts { pals: 1, ..Amounts::default() }), Err(Status::OUT_OF_MEMORY));
        assert_eq!(accounts.start(LIMIT), Ok(()));
        accounts
    }

    #[test]
    fn one_address_space_leaves_a_quarter_of_everything_to_others() {
        let one = Amounts { pals: 1, pages: 1, runs: 1, regions: 1, bytes: 1 };
        for more in [
            Amounts { pals: 6, ..one },
            Amounts { pages: 60, ..one },
            Amounts { runs: 30, ..one },
            Amounts { regions: 30, ..one },
            Amounts { bytes: 3000, ..one },
        ] {
            let mut accounts = accounts();
            assert_eq!(accounts.take(0x1000, more), Ok(()));
            assert_eq!(accounts.take(0x1000, one), Err(Status::QUOTA), "{more:?}");
            assert_eq!(accounts.take(0x2000, one), Ok(()), "{more:?}");
            accounts.give_back(0x1000, more);
            assert_eq!((accounts.take(0x1000, more), accounts.taken()), (Ok(()), more.and(one)));
        }
        let quarter = Amounts { pals: 2, ..one };
        let mut accounts = accounts();
        assert!((0..4).all(|space| accounts.take(space, quarter) == Ok(())));
        assert_eq!(accounts.take(4, one), Err(Status::OUT_OF_MEMORY));
    }

    #[test]
    fn what_a_pal_takes_is_counted_to_the_byte() {
        use crate::layout::{Kind, Section};
        use crate::lists::Parameter;
        use trustvisor::parameter::ParameterType;
        let section = |count| Section { kind: Kind::Shared, start: 0, count, pages: Vec::new() };
        let parameter = Parameter { kind: ParameterType::Integer, words: 0 };
        let mut layout = Layout { sections: vec![section(2), section(3)], ..Layout::empty() };
        layout.shared = vec![section(5)];
        layout.parameters = vec![parameter; 7];
        let unsigned =
            Amounts { pals: 1, pages: 10, runs: 0, regions: 0, bytes: 3 * 96 + 7 * 16 + 64 + 10 * 8 };
        assert_eq!(Amounts::of(&layout), unsigned);
        layout.is_signed = true;
        let bytes = unsigned.bytes + crate::signing::CLAIM_BYTES + 64;
        assert_eq!(Amounts::of(&layout), Amounts { bytes, ..unsigned });
    }

    #[test]
    fn an_address_space_counts_as_long_as_it_has_something() {
        let one = Amounts { pals: 1, regions: 1, ..Amounts::default() };
        let (pal, region) = (Amounts { regions: 0, ..one }, Amounts { pals: 0, ..one });
        // Of a PAL and a region each may be given up first, and what is left goes on to count.
        for (first, second, most) in
            [(pal, region, Amounts { regions: 29, ..pal }), (region, pal, Amounts { pals: 5, ..region })]
        {
            let mut accounts = accounts();
            assert_eq!(accounts.take(1, one), Ok(()));
            accounts.give_back(1, first);
            assert_eq!(accounts.take(1, most), Ok(()), "the rest of the quota");
            assert_eq!(accounts.take(1, second), Err(Status::QUOTA), "{second:?}");
            accounts.give_back(1, most.and(second));
            assert_eq!(accounts.taken(), Amounts::default());
        }
        // Who has nothing any more leaves no row: there are not as many as address spaces.
        let mut accounts = accounts();
        for space in 0..1000 {
            assert_eq!(accounts.take(space, one), Ok(()), "{space}");
            accounts.give_back(space, one);
        }
    }
}
