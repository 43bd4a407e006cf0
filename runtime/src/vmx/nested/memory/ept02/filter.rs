//! Which pages of L1's memory the tables may map: what none maps need not be searched for.
//!
//! A page is noted when an entry for it is written, and stays so while there are tables. Several pages may share a
//! bit, so that the answer is "no" or "perhaps".

use crate::memory::range::GuestRange;
use x86::address::MIB;
use x86::paging::{PAGE_SIZE, PageSize};

/// Size of a region, all of whose pages a large page maps.
const REGION_BYTES: u64 = 2 * MIB;
const REGION_WORDS: usize = 64;
/// Pages of a range that are looked up one by one.
const LOOKUPS: u64 = 64;

/// The filter.
#[derive(Debug)]
pub(super) struct Filter {
    /// A bit for each page, modulo their number; of a power of two words.
    pages: &'static mut [u64],
    /// A bit for each region that large pages map.
    regions: [u64; REGION_WORDS],
    /// Pages that were noted since all bits were clear.
    noted: usize,
}

impl Filter {
    /// Makes a filter of as many words as the largest power of two that `words` has room for; none without one.
    pub(super) fn new(words: &'static mut [u64]) -> Self {
        let length = words.len().checked_ilog2().map_or(0, |log| 1 << log);
        let (pages, _) = words.split_at_mut(length);
        pages.fill(0);
        Self { pages, regions: [0; REGION_WORDS], noted: 0 }
    }

    /// The page of `size` at `page` is mapped from now on.
    pub(super) fn note(&mut self, page: u64, size: PageSize) {
        self.noted += 1;
        if size == PageSize::Size4K {
            set(self.pages, page / PAGE_SIZE);
            return;
        }
        let first = page / REGION_BYTES;
        (first..first + size.bytes() / REGION_BYTES).for_each(|region| set(&mut self.regions, region));
    }

    /// Returns whether some page of `range` may be mapped.
    pub(super) fn may_hold(&self, range: GuestRange) -> bool {
        let (first, end) = (range.start() / PAGE_SIZE, range.end().div_ceil(PAGE_SIZE));
        if end - first > LOOKUPS {
            return true;
        }
        let (region, last) = (range.start() / REGION_BYTES, (range.end() - 1) / REGION_BYTES);
        (first..end).any(|page| is_set(self.pages, page))
            || (region..=last).any(|region| is_set(&self.regions, region))
    }

    /// No page is mapped any more: starts anew where enough was noted to make up for it.
    pub(super) fn refresh(&mut self) {
        if self.noted > self.pages.len() {
            self.pages.fill(0);
            self.regions.fill(0);
            self.noted = 0;
        }
    }
}

fn set(words: &mut [u64], number: u64) {
    let (word, bit) = place(words.len(), number);
    if let Some(word) = words.get_mut(word) {
        *word |= bit;
    }
}

/// Without words everything may be set.
fn is_set(words: &[u64], number: u64) -> bool {
    let (word, bit) = place(words.len(), number);
    words.get(word).is_none_or(|word| word & bit != 0)
}

/// Returns the word, of a power of two of them, and the bit for `number`.
const fn place(words: usize, number: u64) -> (usize, u64) {
    ((number / 64) as usize & words.wrapping_sub(1), 1 << (number % 64))
}

#[cfg(test)]
mod tests {
    use super::Filter;
    use crate::memory::range::GuestRange;
    use x86::paging::PageSize;

    const GIB: u64 = 1 << 30;

    fn filter(words: usize) -> Filter {
        Filter::new(Box::leak(vec![u64::MAX; words].into_boxed_slice()))
    }

    fn pages(start: u64, count: u64) -> GuestRange {
        GuestRange::between(start, start + (count << 12))
    }

    #[test]
    fn what_was_noted_may_be_mapped_and_the_rest_is_not() {
        let mut filter = filter(300);
        filter.note(0x5000, PageSize::Size4K);
        assert!(filter.may_hold(pages(0x5000, 1)) && filter.may_hold(pages(0, 6)));
        assert!(!filter.may_hold(pages(0, 5)) && !filter.may_hold(pages(0x6000, 64)));
        // As many pages further on as there are bits in 256 words.
        assert!(filter.may_hold(pages(0x5000 + (256 << 18), 1)));
        assert!(filter.may_hold(pages(0x6000, 65)), "too many to look up");
    }

    #[test]
    fn large_pages_hold_all_within() {
        let mut filter = filter(16);
        filter.note(GIB, PageSize::Size2M);
        assert!(filter.may_hold(pages(GIB + 0x1f_f000, 1)) && filter.may_hold(pages(GIB - 0x1000, 2)));
        assert!(!filter.may_hold(pages(GIB + 0x20_0000, 1)) && !filter.may_hold(pages(GIB - 0x1000, 1)));
        filter.note(2 * GIB, PageSize::Size1G);
        assert!(filter.may_hold(pages(2 * GIB, 1)) && filter.may_hold(pages(3 * GIB - 0x1000, 1)));
        assert!(!filter.may_hold(pages(3 * GIB, 1)));
    }

    #[test]
    fn it_starts_anew_where_that_pays() {
        let mut filter = filter(2);
        filter.note(0x5000, PageSize::Size4K);
        filter.note(0, PageSize::Size2M);
        filter.refresh();
        assert!(filter.may_hold(pages(0x5000, 1)));
        filter.note(0x5000, PageSize::Size4K);
        filter.refresh();
        assert!(!filter.may_hold(pages(0, 64)));
    }

    #[test]
    fn without_words_everything_may_be_mapped() {
        assert!(filter(0).may_hold(pages(0x5000, 1)));
    }
}
