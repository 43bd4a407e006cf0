//! Pages of the guest of which the hypervisor keeps something derived: a write to one is noticed.
//!
//! The guest loses the right to write such a page, in every view. Its first write exits; the page is then
//! forgotten here and the write done. Whoever watches finds out by the number that the watch was given, or
//! for all pages at once by [`writes`].

use arrayvec::ArrayVec;
use core::sync::atomic::{AtomicU64, Ordering};

use super::range::GuestRange;
use super::sorted_pages::run_at;
use x86::paging::PAGE_SIZE;

/// Most pages that are watched at a time.
pub const WATCHED_PAGES: usize = 512;

/// Writes to watched pages, so far, of this machine.
static WRITES: AtomicU64 = AtomicU64::new(0);

/// Writes to watched pages, so far: while it does not change, no watch has ended.
pub fn writes() -> u64 {
    WRITES.load(Ordering::SeqCst)
}

/// A watch of a page. Another watch of the same page, after a write to it, is another number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watch(u64);

#[cfg(test)]
impl Watch {
    /// Returns a watch of a fake.
    pub(crate) const fn numbered(number: u64) -> Self {
        Self(number)
    }
}

/// The pages, in ascending order.
#[derive(Debug, Default)]
pub(super) struct WatchedPages {
    pages: ArrayVec<(u64, Watch), WATCHED_PAGES>,
    last: u64,
}

impl WatchedPages {
    pub(super) const fn new() -> Self {
        Self { pages: ArrayVec::new_const(), last: 0 }
    }

    fn find(&self, page: u64) -> Result<usize, usize> {
        self.pages.binary_search_by_key(&page, |watched| watched.0)
    }

    /// Returns the watch of `page`, if there is one.
    pub(super) fn get(&self, page: u64) -> Option<Watch> {
        self.find(page).ok().map(|index| self.pages[index].1)
    }

    /// Returns whether the page at `address` is watched.
    pub(super) fn is_watched(&self, address: u64) -> bool {
        !self.pages.is_empty() && self.find(address & !(PAGE_SIZE - 1)).is_ok()
    }

    /// Watches `page`, which is not watched. `None` where there is no room.
    pub(super) fn insert(&mut self, page: u64) -> Option<Watch> {
        let index = self.find(page).unwrap_or_else(|index| index);
        let watch = Watch(self.last + 1);
        self.pages.try_insert(index, (page, watch)).ok()?;
        self.last = watch.0;
        Some(watch)
    }

    /// Ends the watch of `page`, which is written; tells whether there was one.
    pub(super) fn end(&mut self, page: u64) -> bool {
        let Ok(index) = self.find(page) else { return false };
        self.pages.remove(index);
        WRITES.fetch_add(1, Ordering::SeqCst);
        true
    }

    /// Returns whether `address` is watched, and the pages around it of which the same holds, within `run`.
    pub(super) fn run_at(&self, address: u64, run: GuestRange) -> (GuestRange, bool) {
        run_at(&self.pages, |watched| watched.0, address, run)
    }
}

#[cfg(test)]
mod tests {
    use super::{WATCHED_PAGES, WatchedPages, writes};
    use crate::memory::range::GuestRange;

    const ALL: GuestRange = GuestRange::between(0, 1 << 40);

    #[test]
    fn a_page_is_alone_and_its_neighbours_end_at_it() {
        let mut pages = WatchedPages::new();
        assert_eq!(pages.run_at(0x5123, ALL), (ALL, false));
        assert!(pages.insert(0x5000).is_some() && pages.insert(0x3000).is_some());
        let watched = [0x4fff, 0x5000, 0x5fff, 0x6000].map(|address| pages.is_watched(address));
        assert_eq!(watched, [false, true, true, false]);
        assert_eq!(pages.run_at(0x5123, ALL), (GuestRange::between(0x5000, 0x6000), true));
        assert_eq!(pages.run_at(0x4fff, ALL), (GuestRange::between(0x4000, 0x5000), false));
        assert_eq!(pages.run_at(0x2000, ALL), (GuestRange::between(0, 0x3000), false));
        let run = GuestRange::between(0x7000, 0x9000);
        assert_eq!(pages.run_at(0x8000, run), (run, false));
    }

    #[test]
    fn a_write_ends_the_watch_and_the_next_is_another() {
        let mut pages = WatchedPages::new();
        let first = pages.insert(0x1000);
        let before = writes();
        assert!(pages.end(0x1000) && !pages.end(0x1000));
        assert!(writes() > before);
        assert_eq!(pages.get(0x1000), None);
        let second = pages.insert(0x1000);
        assert!(second.is_some() && first != second);
        assert_eq!(pages.get(0x1000), second);
    }

    #[test]
    fn a_full_list_takes_no_more() {
        let mut pages = WatchedPages::new();
        for page in 0..WATCHED_PAGES as u64 {
            assert!(pages.insert(page << 12).is_some());
        }
        assert_eq!(pages.insert(1 << 30), None);
        assert!(pages.end(0) && pages.insert(1 << 30).is_some());
    }
}
