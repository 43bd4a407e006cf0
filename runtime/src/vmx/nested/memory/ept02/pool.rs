//! The frames of the tables under which L2 runs, and what is known of each.
//!
//! Any number of L1's processors may walk a table that is dropped here: its frame waits, content untouched, in
//! the order of the drops, until all processors have flushed since. So nobody is stopped to drop a table, only
//! to use its frame again.

use hw::PhysMemory;
use static_assertions::assert_eq_size;
use x86::address::HostPhysAddr;
use x86::paging::PAGE_SIZE;

const NONE: u32 = u32::MAX;
assert_eq_size!(Frame, [u64; 3]);
static ZEROES: [u8; 4096] = [0; 4096];

/// What one frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::vmx) enum Frame {
    /// Free, before the free frame `next`.
    Free { next: u32 },
    /// A table in use.
    Table(Table),
    /// Dropped when `since` frames had ever been dropped before, ahead of the frame `next`.
    Waiting { next: u32, since: u64 },
}

/// A table in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::vmx) struct Table {
    /// First and last page of L1's memory that its entries map, or mapped once; none where the first is behind
    /// the last. Numbers too large say the largest.
    first_page: u32,
    last_page: u32,
    /// Frame with the entry that references it; a root's own.
    parent: u32,
    /// Index of that entry.
    slot: u16,
    /// Index of the root that it is under.
    pub(super) root: u16,
    /// Level, 4 for a root.
    pub(super) level: u8,
}

/// Drops that happened so far: what a flush that begins now makes free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "until processors flush, dropped tables stay in use"]
pub(in crate::vmx) struct Dropped(u64);

/// The frames.
#[derive(Debug)]
pub(super) struct Pool {
    base: u64,
    frames: &'static mut [Frame],
    free: u32,
    available: usize,
    /// Frames from here on were not taken since all were free.
    reach: usize,
    /// First and last of the frames that wait.
    waiting: Option<(u32, u32)>,
    dropped: u64,
    released: u64,
}

impl Table {
    /// The pages from `start` up to `end`, addresses in L1's memory, are mapped from now on.
    pub(super) fn note_pages(&mut self, start: u64, end: u64) {
        self.first_page = self.first_page.min(page_number(start));
        self.last_page = self.last_page.max(page_number(end - 1));
    }

    /// Returns whether some entry may map a page between the addresses `start` and `end` of L1's memory.
    pub(super) fn may_map(&self, start: u64, end: u64) -> bool {
        self.first_page <= page_number(end - 1) && page_number(start) <= self.last_page
    }
}

/// Where a new table goes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    /// It is the root with this index.
    Root(u16),
    /// Entry `slot` of the table in `parent` is to reference it.
    Under {
        /// A table in use.
        parent: HostPhysAddr,
        /// Index of the entry.
        slot: u16,
    },
}

impl Frame {
    /// A frame before there is a pool.
    pub(in crate::vmx) const NEW: Self = Self::Free { next: NONE };
}

impl Pool {
    /// Makes the pool of the memory from `base` on, one frame for each element of `frames`.
    pub(super) fn new(base: HostPhysAddr, frames: &'static mut [Frame]) -> Self {
        let mut pool = Self {
            base: base.get(),
            frames,
            free: NONE,
            available: 0,
            reach: 0,
            waiting: None,
            dropped: 0,
            released: 0,
        };
        for index in (0..pool.frames.len()).rev() {
            pool.push(number(index));
        }
        pool
    }

    pub(super) const fn len(&self) -> usize {
        self.frames.len()
    }

    /// Frames that a search for tables has to look at: as many as there ever were in use at a time since all were
    /// free, because the last that came back is the next that is given.
    pub(super) const fn reach(&self) -> usize {
        self.reach
    }

    /// Frames that [`Self::take`] can give now.
    pub(super) const fn available(&self) -> usize {
        self.available
    }

    /// Frames that a flush would make free.
    #[expect(clippy::cast_possible_truncation, reason = "no more wait than there are")]
    pub(super) const fn waiting(&self) -> usize {
        (self.dropped - self.released) as usize
    }

    /// Takes a zeroed frame for a table at `place`; `None` where none is free.
    pub(super) fn take(&mut self, memory: &impl PhysMemory, place: Place) -> Option<HostPhysAddr> {
        let index = self.free;
        let Some(Frame::Free { next }) = self.frames.get(index as usize) else { return None };
        self.free = *next;
        self.available -= 1;
        self.reach = self.reach.max(index as usize + 1);
        let (parent, slot, root, level) = match place {
            Place::Root(root) => (index, 0, root, 4),
            Place::Under { parent, slot } => {
                let above = *self.table(parent);
                (self.index(parent), slot, above.root, above.level - 1)
            }
        };
        let table = Table { first_page: u32::MAX, last_page: 0, parent, slot, root, level };
        self.frames[index as usize] = Frame::Table(table);
        let frame = self.address(index);
        // Before an entry references it: other processors walk the table from then on.
        memory.write(frame, &ZEROES);
        Some(frame)
    }

    /// Returns the entry that references the table in `frame`; `None` for a root.
    pub(super) fn entry_of(&mut self, frame: HostPhysAddr) -> Option<HostPhysAddr> {
        let index = self.index(frame);
        let Table { parent, slot, .. } = *self.table(frame);
        (parent != index).then(|| HostPhysAddr::new(self.address(parent).get() + 8 * u64::from(slot)))
    }

    /// Returns the table in `frame`.
    pub(super) fn table(&mut self, frame: HostPhysAddr) -> &mut Table {
        let index = self.index(frame);
        match &mut self.frames[index as usize] {
            Frame::Table(table) => table,
            other => panic!("{frame:?} is no table: {other:?}"),
        }
    }

    /// Returns the table in frame number `index`, where there is one, and its address.
    pub(super) fn table_at(&self, index: usize) -> Option<(HostPhysAddr, Table)> {
        match self.frames.get(index)? {
            Frame::Table(table) => Some((self.address(number(index)), *table)),
            Frame::Free { .. } | Frame::Waiting { .. } => None,
        }
    }

    /// Puts the frame of a table that nothing references any more aside.
    pub(super) fn drop_table(&mut self, frame: HostPhysAddr) {
        let index = self.index(frame);
        assert!(matches!(self.frames[index as usize], Frame::Table(_)), "{frame:?} is dropped twice");
        self.frames[index as usize] = Frame::Waiting { next: NONE, since: self.dropped };
        self.dropped += 1;
        self.waiting = match self.waiting {
            None => Some((index, index)),
            Some((first, last)) => {
                if let Frame::Waiting { next, .. } = &mut self.frames[last as usize] {
                    *next = index;
                }
                Some((first, index))
            }
        };
    }

    /// Returns what a flush that begins now covers.
    pub(super) const fn dropped(&self) -> Dropped {
        Dropped(self.dropped)
    }

    /// Makes free what was dropped before `dropped` was taken: every processor has flushed since.
    pub(super) fn release(&mut self, dropped: Dropped) {
        while let Some((first, last)) = self.waiting {
            let Frame::Waiting { next, since } = self.frames[first as usize] else { return };
            // Frames wait in the order of the drops: none behind this one is covered either.
            if since >= dropped.0 {
                return;
            }
            self.waiting = (first != last).then_some((next, last));
            self.released += 1;
            self.push(first);
        }
    }

    fn push(&mut self, index: u32) {
        self.frames[index as usize] = Frame::Free { next: self.free };
        self.free = index;
        self.available += 1;
        if self.available == self.frames.len() {
            self.reach = 0;
        }
    }

    fn address(&self, index: u32) -> HostPhysAddr {
        HostPhysAddr::new(self.base + u64::from(index) * PAGE_SIZE)
    }

    fn index(&self, frame: HostPhysAddr) -> u32 {
        let index = frame.get().checked_sub(self.base).map(|offset| offset / PAGE_SIZE);
        match index.and_then(|index| u32::try_from(index).ok()) {
            Some(index) if (index as usize) < self.frames.len() && frame.page_offset() == 0 => index,
            _ => panic!("{frame:?} is not of the pool"),
        }
    }
}

fn page_number(address: u64) -> u32 {
    u32::try_from(address / PAGE_SIZE).unwrap_or(u32::MAX)
}

/// Returns a frame's number; a pool of the region has fewer than 2^20.
fn number(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(NONE)
}

#[cfg(test)]
mod tests {
    use super::{Frame, Place, Pool};
    use hw::PhysMemory;
    use hw::sim::SimMemory;
    use x86::address::HostPhysAddr;

    const TABLE: Place = Place::Root(0);

    fn pool(count: usize) -> (SimMemory, Pool) {
        let frames = Box::leak(vec![Frame::NEW; count].into_boxed_slice());
        (SimMemory::new(0xa5), Pool::new(HostPhysAddr::new(0x10_0000), frames))
    }

    #[test]
    fn every_frame_is_given_once_and_zeroed() {
        let (memory, mut pool) = pool(3);
        let given: Vec<_> = (0..4).filter_map(|_| pool.take(&memory, TABLE)).collect();
        assert_eq!(given.iter().map(|f| f.get()).collect::<Vec<_>>(), [0x10_0000, 0x10_1000, 0x10_2000]);
        assert!(given.iter().all(|f| memory.read_u64(HostPhysAddr::new(f.get() + 4088)) == 0));
        assert_eq!((pool.available(), pool.len()), (0, 3));
        assert!(pool.table_at(2).is_some() && pool.table_at(3).is_none());
    }

    #[test]
    fn a_search_looks_at_no_more_than_was_in_use() {
        let (memory, mut pool) = pool(1000);
        assert_eq!(pool.reach(), 0);
        let given: Vec<_> = (0..3).filter_map(|_| pool.take(&memory, TABLE)).collect();
        pool.drop_table(given[1]);
        pool.release(pool.dropped());
        assert_eq!(pool.take(&memory, TABLE), Some(given[1]));
        assert_eq!(pool.reach(), 3);
        given.iter().for_each(|&frame| pool.drop_table(frame));
        assert_eq!(pool.reach(), 3, "processors may walk them");
        pool.release(pool.dropped());
        assert_eq!(pool.reach(), 0);
    }

    #[test]
    fn a_dropped_frame_keeps_its_content_until_a_later_flush() {
        let (memory, mut pool) = pool(3);
        let given: Vec<_> = (0..3).filter_map(|_| pool.take(&memory, TABLE)).collect();
        memory.write_u64(given[1], 7);
        pool.drop_table(given[1]);
        let early = pool.dropped();
        pool.drop_table(given[0]);
        let late = pool.dropped();
        assert_eq!((pool.waiting(), memory.read_u64(given[1])), (2, 7));
        pool.release(early);
        assert_eq!((pool.waiting(), pool.available()), (1, 1));
        assert_eq!(pool.take(&memory, TABLE), Some(given[1]));
        assert_eq!(pool.take(&memory, TABLE), None);
        pool.release(late);
        assert_eq!(pool.take(&memory, TABLE), Some(given[0]));
        pool.release(late);
        assert_eq!((pool.waiting(), pool.available()), (0, 0));
    }

    #[test]
    fn a_table_knows_its_place_and_its_pages() {
        let (memory, mut pool) = pool(2);
        let root = pool.take(&memory, Place::Root(5)).unwrap_or_default();
        let below = pool.take(&memory, Place::Under { parent: root, slot: 511 }).unwrap_or_default();
        assert_eq!(pool.entry_of(root), None);
        assert_eq!(pool.entry_of(below), Some(HostPhysAddr::new(root.get() + 4088)));
        let table = pool.table(below);
        assert_eq!((table.level, table.root), (3, 5));
        assert!(!table.may_map(0, 1 << 40));
        table.note_pages(0x5000, 0x6000);
        table.note_pages(0x20_0000, 0x40_0000);
        assert!(table.may_map(0x3f_f000, 1 << 40) && table.may_map(0, 0x5001));
        assert!(!table.may_map(0, 0x5000) && !table.may_map(0x40_0000, 0x50_0000));
        table.note_pages(1 << 50, (1 << 50) + 0x1000);
        assert!(table.may_map(1 << 51, 1 << 52));
    }

    #[test]
    #[should_panic(expected = "dropped twice")]
    fn a_double_drop_stops() {
        let (memory, mut pool) = pool(1);
        let frame = pool.take(&memory, TABLE).unwrap_or_default();
        pool.drop_table(frame);
        pool.drop_table(frame);
    }

    #[test]
    #[should_panic(expected = "not of the pool")]
    fn a_foreign_frame_stops() {
        pool(1).1.drop_table(HostPhysAddr::new(0x10_1000));
    }

    #[test]
    #[should_panic(expected = "is no table")]
    fn a_free_frame_is_no_table() {
        pool(1).1.table(HostPhysAddr::new(0x10_0000));
    }
}
