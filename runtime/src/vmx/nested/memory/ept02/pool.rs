//! The frames of the tables under which L2 runs, and what is known of each.
//!
//! Any number of L1's processors may walk a table that is dropped here: its frame waits, content untouched, in
//! the order of the drops, until all processors have flushed since. So nobody is stopped to drop a table, only
//! to use its frame again.
//!
//! A table is dropped with all below it in a few steps, however many these are: only its own frame is put aside,
//! with their number. They follow when that frame is taken again, one level at a time.

use hw::PhysMemory;
use static_assertions::assert_eq_size;
use x86::address::HostPhysAddr;
use x86::paging::{ENTRIES, PAGE_SIZE, PageSize};
use x86::vmx::ept_entry::EptEntry;

const NONE: u32 = u32::MAX;
/// Dropped tables whose frames become free at a time, at most.
const RELEASED_AT_ONCE: usize = 256;
assert_eq_size!(Frame, [u64; 4]);
static ZEROES: [u8; 4096] = [0; 4096];

/// What one frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::vmx) enum Frame {
    /// Free, with what was below it, before the free frame `next`.
    Free { next: u32, remains: Remains },
    /// A table in use, or below one that was dropped.
    Table(Table),
    /// Dropped, with all below it, when `since` frames had ever been dropped before, ahead of the frame `next`.
    Waiting { next: u32, since: u64, remains: Remains },
}

/// What is left of a dropped table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::vmx) struct Remains {
    /// Tables that it and its entries lead to, itself too.
    count: u32,
    level: u8,
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
    /// Tables that it and its entries lead to, itself too.
    count: u32,
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
    /// Tables in use but roots.
    below_roots: usize,
    /// First and last of the frames that wait.
    waiting: Option<(u32, u32)>,
    dropped: u64,
    released: u64,
    /// What a flush has covered.
    flushed: u64,
}

impl Table {
    /// The pages from `start` up to `end`, addresses in L1's memory, are mapped from now on.
    pub(super) fn note_pages(&mut self, start: u64, end: u64) {
        self.first_page = self.first_page.min(page_number(start));
        self.last_page = self.last_page.max(page_number(end - 1));
    }

    /// Returns whether some entry may map a page, or did once.
    pub(super) const fn may_map_any(&self) -> bool {
        self.first_page <= self.last_page
    }

    /// Returns the number of tables that it and its entries lead to, itself too.
    pub(super) const fn count(&self) -> u32 {
        self.count
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
    pub(in crate::vmx) const NEW: Self = Self::Free { next: NONE, remains: Remains::ONE };
}

impl Remains {
    /// A frame that leads to no other.
    const ONE: Self = Self { count: 1, level: 1 };
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
            below_roots: 0,
            waiting: None,
            dropped: 0,
            released: 0,
            flushed: 0,
        };
        for index in (0..pool.frames.len()).rev() {
            pool.push(number(index), Remains::ONE);
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

    /// Tables in use but roots: those that can map pages.
    pub(super) const fn below_roots(&self) -> usize {
        self.below_roots
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
        if self.free == NONE {
            self.release_flushed();
        }
        let index = self.free;
        let Some(&Frame::Free { next, remains }) = self.frames.get(index as usize) else { return None };
        self.free = next;
        self.available -= 1;
        self.reach = self.reach.max(index as usize + 1);
        let frame = self.address(index);
        self.free_below(memory, frame, remains);
        let (parent, slot, root, level) = match place {
            Place::Root(root) => (index, 0, root, 4),
            Place::Under { parent, slot } => {
                let above = *self.table(parent);
                self.below_roots += 1;
                let parent = self.index(parent);
                self.count(parent, |count| count + 1);
                (parent, slot, above.root, above.level - 1)
            }
        };
        let table = Table { first_page: u32::MAX, last_page: 0, parent, count: 1, slot, root, level };
        self.frames[index as usize] = Frame::Table(table);
        // Before an entry references it: other processors walk the table from then on.
        memory.write(frame, &ZEROES);
        Some(frame)
    }

    /// Makes the tables free that a free frame's entries lead to; no processor finds them any more.
    fn free_below(&mut self, memory: &impl PhysMemory, frame: HostPhysAddr, remains: Remains) {
        let mut left = remains.count - 1;
        for slot in slots(frame) {
            if left == 0 {
                break;
            }
            let entry = EptEntry(memory.read_u64(slot));
            if !entry.is_present() || entry.is_leaf(remains.level) {
                continue;
            }
            let index = self.index(HostPhysAddr::new(entry.address(PageSize::Size4K)));
            if let Frame::Table(Table { count, level, .. }) = self.frames[index as usize] {
                left = left.saturating_sub(count);
                // They counted as free with the frame above them.
                self.frames[index as usize] =
                    Frame::Free { next: self.free, remains: Remains { count, level } };
                self.free = index;
            }
        }
    }

    /// Changes the count of the table in frame number `index`, and of those above it.
    fn count(&mut self, mut index: u32, change: impl Fn(u32) -> u32) {
        while let Frame::Table(table) = &mut self.frames[index as usize] {
            table.count = change(table.count);
            if table.parent == index {
                return;
            }
            index = table.parent;
        }
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

    /// Returns the table in frame number `index`, where there is one, and its address; it may be below one that was
    /// dropped.
    pub(super) fn table_at(&self, index: usize) -> Option<(HostPhysAddr, Table)> {
        match self.frames.get(index)? {
            Frame::Table(table) => Some((self.address(number(index)), *table)),
            Frame::Free { .. } | Frame::Waiting { .. } => None,
        }
    }

    /// Returns whether the table in frame number `index` is in use: a root leads to it.
    pub(super) fn is_in_use(&self, index: usize) -> bool {
        let mut index = number(index);
        while let Some(Frame::Table(table)) = self.frames.get(index as usize) {
            if table.parent == index {
                return true;
            }
            index = table.parent;
        }
        false
    }

    /// Puts the frame of a table that nothing references any more aside, with all that its entries lead to.
    pub(super) fn drop_table(&mut self, frame: HostPhysAddr) {
        let index = self.index(frame);
        let Frame::Table(table) = self.frames[index as usize] else { panic!("{frame:?} is dropped twice") };
        let Table { parent, count, level, .. } = table;
        if parent == index {
            self.below_roots -= count as usize - 1;
        } else {
            self.below_roots -= count as usize;
            self.count(parent, |above| above - count);
        }
        let remains = Remains { count, level };
        self.frames[index as usize] = Frame::Waiting { next: NONE, since: self.dropped, remains };
        self.dropped += u64::from(count);
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

    /// Makes free what was dropped before `dropped` was taken: every processor has flushed since. Where that is much,
    /// some of it waits until it is needed.
    pub(super) fn release(&mut self, dropped: Dropped) {
        self.flushed = self.flushed.max(dropped.0);
        self.release_flushed();
    }

    fn release_flushed(&mut self) {
        for _ in 0..RELEASED_AT_ONCE {
            let Some((first, last)) = self.waiting else { return };
            let Frame::Waiting { next, since, remains } = self.frames[first as usize] else { return };
            // Frames wait in the order of the drops: none behind this one is covered either.
            if since >= self.flushed {
                return;
            }
            self.waiting = (first != last).then_some((next, last));
            self.released += u64::from(remains.count);
            self.push(first, remains);
        }
    }

    fn push(&mut self, index: u32, remains: Remains) {
        self.frames[index as usize] = Frame::Free { next: self.free, remains };
        self.free = index;
        self.available += remains.count as usize;
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

/// Returns where the entries of `table` are.
pub(super) fn slots(table: HostPhysAddr) -> impl Iterator<Item = HostPhysAddr> {
    (0..ENTRIES as u64).map(move |entry| HostPhysAddr::new(table.get() + 8 * entry))
}

fn page_number(address: u64) -> u32 {
    u32::try_from(address / PAGE_SIZE).unwrap_or(u32::MAX)
}

/// Returns a frame's number; a pool of the region has fewer than 2^20.
fn number(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(NONE)
}

#[cfg(test)]
#[path = "pool_tests.rs"]
mod tests;
