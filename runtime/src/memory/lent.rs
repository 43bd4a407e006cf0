//! Pages that the processor itself writes, by a physical address that no second-level table translates.
//!
//! Nothing tells when it has written for the last time, so what was lent once is never protected in this boot.

use arrayvec::ArrayVec;

use super::protect::Full;
use super::range::GuestRange;

/// Most ranges: an operating system names one a package.
const CAPACITY: usize = 64;

/// The ranges.
#[derive(Debug)]
pub(super) struct Lent {
    ranges: ArrayVec<GuestRange, CAPACITY>,
}

impl Lent {
    pub(super) const fn new() -> Self {
        Self { ranges: ArrayVec::new_const() }
    }

    /// Returns whether some page of `range` was lent.
    pub(super) fn touches(&self, range: GuestRange) -> bool {
        self.ranges.iter().any(|lent| lent.intersection(range).is_some())
    }

    pub(super) fn insert(&mut self, range: GuestRange) -> Result<(), Full> {
        if self.ranges.iter().any(|lent| lent.contains(range)) {
            return Ok(());
        }
        self.ranges.try_push(range).map_err(|_| Full)
    }
}

#[cfg(test)]
mod tests {
    use super::{CAPACITY, Full, Lent};
    use crate::memory::range::GuestRange;

    fn pages(first: u64, count: u64) -> GuestRange {
        GuestRange::between(first << 12, (first + count) << 12)
    }

    #[test]
    fn what_was_lent_is_known_by_every_page_of_it() {
        let mut lent = Lent::new();
        assert_eq!(lent.insert(pages(8, 4)), Ok(()));
        let touched: Vec<_> = (0..20).filter(|&page| lent.touches(pages(page, 1))).collect();
        assert_eq!(touched, [8, 9, 10, 11]);
        assert!(lent.touches(pages(0, 9)) && lent.touches(pages(11, 9)));
        assert!(!lent.touches(pages(0, 8)) && !lent.touches(pages(12, 8)));
    }

    #[test]
    fn the_same_again_takes_no_room_and_one_too_many_is_refused() {
        let mut lent = Lent::new();
        for page in 0..CAPACITY as u64 {
            assert_eq!(lent.insert(pages(2 * page, 1)), Ok(()));
            assert_eq!(lent.insert(pages(2 * page, 1)), Ok(()));
        }
        assert_eq!(lent.insert(pages(1, 1)), Err(Full));
        assert!(!lent.touches(pages(1, 1)));
    }
}
