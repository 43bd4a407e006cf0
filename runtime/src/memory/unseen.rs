//! Pages of the guest that processors write past the tables while its guests run, such as virtual-APIC pages: a write
//! to one has no exit, so that nothing may be derived from it under a watch.

use arrayvec::ArrayVec;

/// Most pages that are told apart.
const PAGES: usize = 512;

/// The pages, in ascending order, each with the number of those who write it.
#[derive(Debug, Default)]
pub(super) struct UnseenWrites {
    pages: ArrayVec<(u64, u32), PAGES>,
    /// Beginnings without an end that found no room. While there is one, any page may be written.
    beyond: u32,
}

impl UnseenWrites {
    pub(super) const fn new() -> Self {
        Self { pages: ArrayVec::new_const(), beyond: 0 }
    }

    fn find(&self, page: u64) -> Result<usize, usize> {
        self.pages.binary_search_by_key(&page, |written| written.0)
    }

    /// Returns whether `page` may be written unseen.
    pub(super) fn may_reach(&self, page: u64) -> bool {
        self.beyond != 0 || self.find(page).is_ok()
    }

    /// One more processor writes `page`.
    pub(super) fn begin(&mut self, page: u64) {
        match self.find(page) {
            Ok(index) => self.pages[index].1 += 1,
            Err(index) if self.pages.try_insert(index, (page, 1)).is_ok() => {}
            Err(_) => self.beyond += 1,
        }
    }

    /// One processor less writes `page`, for which it had begun.
    pub(super) fn end(&mut self, page: u64) {
        // Where this page found no room and another processor's beginning did, the counts are each other's; their sum
        // is right, and so is the answer, as `beyond` stays above zero until both have ended.
        match self.find(page) {
            Ok(index) if self.pages[index].1 == 1 => _ = self.pages.remove(index),
            Ok(index) => self.pages[index].1 -= 1,
            Err(_) => self.beyond = self.beyond.saturating_sub(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{PAGES, UnseenWrites};

    #[test]
    fn a_page_is_written_until_the_last_has_ended() {
        let mut unseen = UnseenWrites::new();
        unseen.begin(0x3000);
        unseen.begin(0x1000);
        unseen.begin(0x3000);
        assert!(unseen.may_reach(0x1000) && unseen.may_reach(0x3000) && !unseen.may_reach(0x2000));
        unseen.end(0x3000);
        assert!(unseen.may_reach(0x3000));
        unseen.end(0x3000);
        assert!(!unseen.may_reach(0x3000) && unseen.may_reach(0x1000));
    }

    #[test]
    fn without_room_any_page_may_be_written() {
        let mut unseen = UnseenWrites::new();
        for page in 0..PAGES as u64 {
            unseen.begin(page << 12);
        }
        assert!(!unseen.may_reach(1 << 40));
        unseen.begin(1 << 40);
        assert!(unseen.may_reach(1 << 40) && unseen.may_reach(1 << 50));
        // One place is free again, and the same page begun anew takes it: the first beginning still counts.
        unseen.end(0);
        unseen.begin(1 << 40);
        unseen.end(1 << 40);
        assert!(unseen.may_reach(1 << 40));
        unseen.end(1 << 40);
        assert!(!unseen.may_reach(1 << 40) && !unseen.may_reach(0) && unseen.may_reach(0x1000));
    }
}
