//! Pages of device registers to which the guest's stores are carried out by the hypervisor: for good, in every view.

use arrayvec::ArrayVec;

use super::protect::Full;
use super::range::GuestRange;
use super::sorted_pages::run_at;

/// Most pages: each function with a register to be kept has one, in each range that names its bus.
pub const GUARDED_PAGES: usize = 128;

/// The pages, in ascending order.
#[derive(Debug, Default)]
pub(super) struct GuardedPages {
    pages: ArrayVec<u64, GUARDED_PAGES>,
}

impl GuardedPages {
    pub(super) const fn new() -> Self {
        Self { pages: ArrayVec::new_const() }
    }

    /// Guards `page`.
    pub(super) fn insert(&mut self, page: u64) -> Result<(), Full> {
        match self.pages.binary_search(&page) {
            Ok(_) => Ok(()),
            Err(index) => self.pages.try_insert(index, page).map_err(|_| Full),
        }
    }

    /// Returns whether some page of `range` is guarded.
    pub(super) fn touches(&self, range: GuestRange) -> bool {
        let first = self.pages.partition_point(|&page| page < range.start());
        self.pages.get(first).is_some_and(|&page| page < range.end())
    }

    /// Returns whether `address` is guarded, and the pages around it of which the same holds, within `run`.
    pub(super) fn run_at(&self, address: u64, run: GuestRange) -> (GuestRange, bool) {
        run_at(&self.pages, |&page| page, address, run)
    }
}

#[cfg(test)]
mod tests {
    use super::{Full, GUARDED_PAGES, GuardedPages};
    use crate::memory::range::GuestRange;

    #[test]
    fn a_range_touches_the_pages_that_it_holds() {
        let mut pages = GuardedPages::new();
        assert!(!pages.touches(GuestRange::between(0, 1 << 40)));
        for page in [0x5000, 0x3000, 0x5000] {
            assert_eq!(pages.insert(page), Ok(()));
        }
        let touched: Vec<_> =
            (0..8).filter(|page| pages.touches(GuestRange::between(page << 12, (page + 1) << 12))).collect();
        assert_eq!(touched, [3, 5]);
        assert!(
            pages.touches(GuestRange::between(0, 0x4000))
                && pages.touches(GuestRange::between(0x4000, 0x9000))
        );
    }

    #[test]
    fn a_full_list_takes_no_other() {
        let mut pages = GuardedPages::new();
        for page in 0..GUARDED_PAGES as u64 {
            assert_eq!(pages.insert(page << 12), Ok(()));
        }
        assert_eq!((pages.insert(1 << 30), pages.insert(0)), (Err(Full), Ok(())));
    }
}
