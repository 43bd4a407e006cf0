//! The hypervisor's pool of 4 KiB frames.
//!
//! Three bitmaps, one bit a frame: free frames, page tables, and dropped page tables, which other processors may
//! still walk until they have flushed. A waiting frame keeps its content, so a stale walk finds what was
//! true before. The allocator lives in a static and is all zero before [`Frames::add`].

use hw::PhysMemory;
use x86::address::HostPhysAddr;
use x86::paging::PAGE_BYTES;

/// A source of zeroed 4 KiB frames, which boot-time exhaustion ends.
pub(crate) type FrameSource<'a> = &'a mut dyn FnMut() -> HostPhysAddr;

/// Most frames of a pool: 128 MiB.
pub const CAPACITY: usize = 32768;

const FRAME_BYTES: u64 = PAGE_BYTES as u64;
const WORDS: usize = CAPACITY / 64;
static ZEROES: [u8; PAGE_BYTES] = [0; PAGE_BYTES];

/// No frame is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exhausted;

/// Memory that cannot be a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolError {
    /// Base or length is not a multiple of 4 KiB, or the length is zero.
    Unaligned,
    /// More than [`CAPACITY`] frames.
    TooLarge,
    /// There is a pool already.
    Twice,
}

/// The pool.
#[derive(Debug)]
pub struct Frames {
    base: u64,
    count: usize,
    available: usize,
    /// Word of `free` where the last search ended.
    next: usize,
    /// Frames that ever started waiting.
    retired: u64,
    /// As many as `retired` was when all that waited became free.
    released: u64,
    free: [u64; WORDS],
    tables: [u64; WORDS],
    waiting: [u64; WORDS],
}

impl Default for Frames {
    fn default() -> Self {
        Self::new()
    }
}

impl Frames {
    /// Makes a pool without frames.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            base: 0,
            count: 0,
            available: 0,
            next: 0,
            retired: 0,
            released: 0,
            free: [0; WORDS],
            tables: [0; WORDS],
            waiting: [0; WORDS],
        }
    }

    /// Gives the pool its memory, once.
    ///
    /// # Errors
    ///
    /// Memory that cannot be a pool; nothing was added then.
    pub fn add(&mut self, base: HostPhysAddr, bytes: u64) -> Result<(), PoolError> {
        if self.count != 0 {
            return Err(PoolError::Twice);
        }
        if base.page_offset() != 0 || !bytes.is_multiple_of(FRAME_BYTES) || bytes == 0 {
            return Err(PoolError::Unaligned);
        }
        self.count = usize::try_from(bytes / FRAME_BYTES)
            .ok()
            .filter(|&count| count <= CAPACITY)
            .ok_or(PoolError::TooLarge)?;
        self.base = base.get();
        self.available = self.count;
        for index in 0..self.count {
            self.free[index / 64] |= 1 << (index % 64);
        }
        Ok(())
    }

    /// Takes one frame, zeroed.
    ///
    /// # Errors
    ///
    /// [`Exhausted`], frames that wait notwithstanding.
    pub fn allocate(&mut self, memory: &impl PhysMemory) -> Result<HostPhysAddr, Exhausted> {
        let words = self.count.div_ceil(64);
        let from_next = (self.next..words).chain(0..self.next);
        let word = from_next.into_iter().find(|&word| self.free[word] != 0).ok_or(Exhausted)?;
        self.next = word;
        let index = word * 64 + self.free[word].trailing_zeros() as usize;
        Ok(self.take(index, memory))
    }

    /// Takes `count` frames that follow each other, zeroed; for boot, as it looks at every frame.
    ///
    /// # Errors
    ///
    /// [`Exhausted`] where no gap is long enough.
    pub fn allocate_run(
        &mut self,
        memory: &impl PhysMemory,
        count: usize,
    ) -> Result<HostPhysAddr, Exhausted> {
        let mut length = 0;
        let last = (0..self.count).find(|&index| {
            length = if bit(&self.free, index) { length + 1 } else { 0 };
            length >= count.max(1)
        });
        let first = last.ok_or(Exhausted)? + 1 - count.max(1);
        for index in first..first + count {
            self.take(index, memory);
        }
        Ok(self.address(first))
    }

    /// Gives back a frame that no processor can reach any more.
    pub fn free(&mut self, frame: HostPhysAddr) {
        let index = self.index(frame);
        let is_in_use = !bit(&self.free, index) && !bit(&self.tables, index) && !bit(&self.waiting, index);
        assert!(is_in_use, "{frame:?} is freed twice, or a table");
        self.free[index / 64] |= 1 << (index % 64);
        self.available += 1;
    }

    /// Returns the number of frames that [`Self::allocate`] can give now.
    #[must_use]
    pub const fn available(&self) -> usize {
        self.available
    }

    /// Takes one frame, zeroed, for a page table.
    pub(super) fn allocate_table(&mut self, memory: &impl PhysMemory) -> Result<HostPhysAddr, Exhausted> {
        let frame = self.allocate(memory)?;
        let index = self.index(frame);
        self.tables[index / 64] |= 1 << (index % 64);
        Ok(frame)
    }

    /// Puts the frames of all tables but `kept` aside until processors have flushed, and returns how many tables are
    /// left. It takes no longer the more there are.
    pub(super) fn retire_all(&mut self, kept: impl Iterator<Item = HostPhysAddr>) -> usize {
        let mut left = [0; WORDS];
        for frame in kept {
            let index = self.index(frame);
            left[index / 64] |= 1 << (index % 64);
        }
        let mut count = 0;
        for (word, &left) in left.iter().enumerate().take(self.count.div_ceil(64)) {
            let retired = core::mem::replace(&mut self.tables[word], left) & !left;
            self.waiting[word] |= retired;
            self.retired += u64::from(retired.count_ones());
            count += left.count_ones() as usize;
        }
        count
    }

    /// Puts the frame of a dropped table aside until processors have flushed.
    pub(super) fn retire(&mut self, frame: HostPhysAddr) {
        let index = self.index(frame);
        assert!(bit(&self.tables, index), "{frame:?} is dropped twice");
        self.tables[index / 64] &= !(1 << (index % 64));
        self.waiting[index / 64] |= 1 << (index % 64);
        self.retired += 1;
    }

    /// Returns the number of frames that were ever retired: a flush that began at the same number covers them all.
    pub(super) const fn retired(&self) -> u64 {
        self.retired
    }

    /// Makes every waiting frame free.
    pub(super) fn release(&mut self) {
        if self.released == self.retired {
            return;
        }
        self.released = self.retired;
        for word in 0..self.count.div_ceil(64) {
            let waiting = core::mem::take(&mut self.waiting[word]);
            self.available += waiting.count_ones() as usize;
            self.free[word] |= waiting;
        }
    }

    fn take(&mut self, index: usize, memory: &impl PhysMemory) -> HostPhysAddr {
        self.free[index / 64] &= !(1 << (index % 64));
        self.available -= 1;
        let frame = self.address(index);
        memory.write(frame, &ZEROES);
        frame
    }

    fn address(&self, index: usize) -> HostPhysAddr {
        HostPhysAddr::new(self.base + index as u64 * FRAME_BYTES)
    }

    fn index(&self, frame: HostPhysAddr) -> usize {
        let index = frame.get().checked_sub(self.base).map(|offset| offset / FRAME_BYTES);
        match index.and_then(|index| usize::try_from(index).ok()) {
            Some(index) if index < self.count && frame.page_offset() == 0 => index,
            _ => panic!("{frame:?} is not of the pool"),
        }
    }
}

fn bit(words: &[u64; WORDS], index: usize) -> bool {
    words[index / 64] >> (index % 64) & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::{CAPACITY, Exhausted, Frames, PoolError};
    use hw::PhysMemory;
    use hw::sim::SimMemory;
    use std::collections::BTreeSet;
    use x86::address::HostPhysAddr;

    const BASE: HostPhysAddr = HostPhysAddr::new(0x80_0000);

    fn pool(count: u64) -> (SimMemory, Frames) {
        let mut frames = Frames::new();
        assert_eq!(frames.add(BASE, count * 4096), Ok(()));
        (SimMemory::new(0xa5), frames)
    }

    #[test]
    fn every_frame_is_given_once_and_zeroed() {
        let (memory, mut frames) = pool(130);
        let given: BTreeSet<_> = (0..130).filter_map(|_| frames.allocate(&memory).ok()).collect();
        assert_eq!(given.len(), 130);
        assert_eq!(given.first(), Some(&BASE));
        assert_eq!(given.last(), Some(&HostPhysAddr::new(BASE.get() + 129 * 4096)));
        assert!(given.iter().all(|f| memory.read_u64(HostPhysAddr::new(f.get() + 4088)) == 0));
        assert_eq!(frames.allocate(&memory), Err(Exhausted));
        frames.free(BASE);
        memory.write_u64(BASE, 7);
        assert_eq!(frames.allocate(&memory), Ok(BASE));
        assert_eq!(memory.read_u64(BASE), 0);
    }

    #[test]
    fn a_run_lies_in_the_first_gap_that_is_long_enough() {
        let (memory, mut frames) = pool(70);
        let first: Vec<_> = (0..4).filter_map(|_| frames.allocate(&memory).ok()).collect();
        frames.free(first[1]);
        frames.free(first[2]);
        assert_eq!(frames.allocate_run(&memory, 2), Ok(first[1]));
        assert_eq!(frames.allocate_run(&memory, 66), Ok(HostPhysAddr::new(BASE.get() + 4 * 4096)));
        assert_eq!(frames.allocate_run(&memory, 1), Err(Exhausted));
        assert_eq!(frames.available(), 0);
    }

    #[test]
    fn a_retired_frame_keeps_its_content_and_comes_back_on_release() {
        let (memory, mut frames) = pool(1);
        let frame = frames.allocate_table(&memory).unwrap_or_default();
        memory.write_u64(frame, 7);
        frames.retire(frame);
        assert_eq!((frames.allocate(&memory), memory.read_u64(frame)), (Err(Exhausted), 7));
        frames.release();
        assert_eq!((frames.allocate(&memory), memory.read_u64(frame)), (Ok(frame), 0));
    }

    #[test]
    fn all_tables_are_retired_but_those_that_are_kept() {
        let (memory, mut frames) = pool(200);
        let page = frames.allocate(&memory).unwrap_or_default();
        let tables: Vec<_> = (0..150).filter_map(|_| frames.allocate_table(&memory).ok()).collect();
        assert_eq!(frames.retire_all([tables[0], tables[100]].into_iter()), 2);
        assert_eq!((frames.available(), frames.retired()), (49, 148));
        frames.release();
        assert_eq!(frames.available(), 197);
        frames.free(page);
        frames.retire(tables[100]);
        assert_eq!(frames.retire_all(core::iter::empty()), 0);
        frames.release();
        assert_eq!((frames.available(), frames.retired()), (200, 150));
    }

    #[test]
    #[should_panic(expected = "dropped twice")]
    fn a_frame_that_is_no_table_is_not_dropped() {
        let (memory, mut frames) = pool(1);
        let frame = frames.allocate(&memory).unwrap_or_default();
        frames.retire(frame);
    }

    #[test]
    fn what_cannot_be_a_pool_is_refused() {
        let mut frames = Frames::new();
        assert_eq!(frames.add(HostPhysAddr::new(1), 4096), Err(PoolError::Unaligned));
        assert_eq!(frames.add(BASE, 0), Err(PoolError::Unaligned));
        assert_eq!(frames.add(BASE, (CAPACITY as u64 + 1) * 4096), Err(PoolError::TooLarge));
        assert_eq!(frames.available(), 0);
        assert_eq!(frames.add(BASE, CAPACITY as u64 * 4096), Ok(()));
        assert_eq!(frames.add(BASE, 4096), Err(PoolError::Twice));
    }

    #[test]
    #[should_panic(expected = "freed twice")]
    fn a_double_free_stops() {
        let (_, mut frames) = pool(1);
        frames.free(BASE);
    }
}
