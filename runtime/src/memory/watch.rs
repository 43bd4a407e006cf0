//! Pages of the guest of which the hypervisor keeps something derived: a write to one is noticed.
//!
//! The guest loses the right to write such a page, in every view. Its first write exits; the page is then
//! forgotten here and the write done. Whoever watches finds out by the number that the watch was given, or
//! for all pages at once by [`writes`]. A page that the hypapp watches too is kept, open, until the hypapp has looked at
//! it: its range stays one of its own, so that no page is joined and split by each write.

use arrayvec::ArrayVec;
use core::sync::atomic::{AtomicU64, Ordering};

use super::range::GuestRange;
use super::sorted_pages::run_at;
use x86::paging::PAGE_SIZE;

/// Most pages that are watched at a time.
pub const WATCHED_PAGES: usize = 1024;

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

/// What becomes of a watched page that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keeping {
    /// It is forgotten.
    Forgotten,
    /// It is open until the hypapp has looked at it.
    Told,
    /// It is open.
    Open,
}

/// A page, its watch, and what becomes of it.
#[derive(Clone, Copy, Debug)]
struct WatchedPage {
    page: u64,
    watch: Watch,
    keeping: Keeping,
}

/// The pages, in ascending order.
#[derive(Debug, Default)]
pub(super) struct WatchedPages {
    pages: ArrayVec<WatchedPage, WATCHED_PAGES>,
    last: u64,
}

/// What a write to a page comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// It is not watched.
    Unwatched,
    /// It was, and is no longer.
    Forgotten,
    /// It is open until the hypapp has looked at it.
    Told,
}

impl WatchedPages {
    pub(super) const fn new() -> Self {
        Self { pages: ArrayVec::new_const(), last: 0 }
    }

    fn find(&self, page: u64) -> Result<usize, usize> {
        self.pages.binary_search_by_key(&page, |watched| watched.page)
    }

    /// Returns the watch of `page`, if there is one.
    pub(super) fn get(&self, page: u64) -> Option<Watch> {
        let watched = &self.pages[self.find(page).ok()?];
        (watched.keeping != Keeping::Open).then_some(watched.watch)
    }

    /// Returns whether the page at `address` is watched.
    pub(super) fn is_watched(&self, address: u64) -> bool {
        !self.pages.is_empty() && self.get(address & !(PAGE_SIZE - 1)).is_some()
    }

    /// Returns whether the hypapp is told of writes to the page at `address`.
    pub(super) fn is_told(&self, address: u64) -> bool {
        let found = self.find(address & !(PAGE_SIZE - 1));
        found.is_ok_and(|index| self.pages[index].keeping != Keeping::Forgotten)
    }

    /// Watches `page`, which is not watched. `None` where there is no room.
    pub(super) fn insert(&mut self, page: u64) -> Option<Watch> {
        let watch = Watch(self.last + 1);
        match self.find(page) {
            Ok(index) => {
                let watched = &mut self.pages[index];
                (watched.watch, watched.keeping) = (watch, Keeping::Told);
            }
            Err(index) => {
                let watched = WatchedPage { page, watch, keeping: Keeping::Forgotten };
                self.pages.try_insert(index, watched).ok()?;
            }
        }
        self.last = watch.0;
        Some(watch)
    }

    /// Has the hypapp be told of writes to `page`, which is watched.
    pub(super) fn tell(&mut self, page: u64) {
        if let Ok(index) = self.find(page) {
            self.pages[index].keeping = Keeping::Told;
        }
    }

    /// Ends the watch of `page`, which is written.
    pub(super) fn end(&mut self, page: u64) -> Written {
        let Ok(index) = self.find(page) else { return Written::Unwatched };
        match self.pages[index].keeping {
            Keeping::Open => return Written::Unwatched,
            Keeping::Told => self.pages[index].keeping = Keeping::Open,
            Keeping::Forgotten => _ = self.pages.remove(index),
        }
        WRITES.fetch_add(1, Ordering::SeqCst);
        match self.pages.get(index) {
            Some(watched) if watched.page == page => Written::Told,
            _ => Written::Forgotten,
        }
    }

    /// Forgets `page`, for whomever it is watched; returns whether it was known.
    pub(super) fn forget(&mut self, page: u64) -> bool {
        let Ok(index) = self.find(page) else { return false };
        self.pages.remove(index);
        WRITES.fetch_add(1, Ordering::SeqCst);
        true
    }

    /// Returns whether `address` is watched, and the pages around it of which the same holds, within `run`.
    pub(super) fn run_at(&self, address: u64, run: GuestRange) -> (GuestRange, bool) {
        let (run, is_known) = run_at(&self.pages, |watched| watched.page, address, run);
        (run, is_known && self.is_watched(address))
    }
}

#[cfg(test)]
mod tests {
    use super::{WATCHED_PAGES, WatchedPages, Written, writes};
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
        assert_eq!([0; 2].map(|_| pages.end(0x1000)), [Written::Forgotten, Written::Unwatched]);
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
        assert!(pages.end(0) == Written::Forgotten && pages.insert(1 << 30).is_some());
    }

    #[test]
    fn what_the_hypapp_watches_is_open_until_it_is_watched_again() {
        let mut pages = WatchedPages::new();
        let first = pages.insert(0x1000);
        assert!(!pages.is_told(0x1008));
        pages.tell(0x1000);
        assert!(pages.is_told(0x1008) && pages.is_watched(0x1008) && pages.get(0x1000) == first);
        assert_eq!([0; 2].map(|_| pages.end(0x1000)), [Written::Told, Written::Unwatched]);
        assert!(pages.is_told(0x1008) && !pages.is_watched(0x1008) && pages.get(0x1000).is_none());
        assert_eq!(pages.run_at(0x1008, ALL), (GuestRange::between(0x1000, 0x2000), false));
        assert_eq!(pages.run_at(0x2008, ALL).0.start(), 0x2000);
        let second = pages.insert(0x1000);
        assert!(second.is_some() && second != first && pages.is_watched(0x1000) && pages.is_told(0x1000));
        assert!(pages.forget(0x1000) && !pages.forget(0x1000) && !pages.is_told(0x1000));
        assert_eq!(pages.run_at(0x1008, ALL), (ALL, false));
    }
}
