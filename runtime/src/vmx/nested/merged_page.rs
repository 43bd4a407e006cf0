//! Frames that hold a page of L1's bitmaps and one of the hypervisor's, merged: a bit is set where either
//! wants the exit.
//!
//! A frame stays good until L1's page is written, which is noticed ([`crate::memory::watch`]); nothing is
//! scanned at an entry of L2. A page that cannot be watched, or that L1 keeps writing, is merged at every
//! entry. Writes by devices are not noticed; no system has a device write its bitmaps.

use crate::memory::guest::GuestMemory;
use crate::memory::watch::Watch;
use hw::PhysMemory;
use x86::address::{GuestPhysAddr, HostPhysAddr};

const PAGE_BYTES: u64 = 4096;
const PIECE: usize = 512;
/// Writes after which a page is not watched any more.
const PATIENCE: u8 = 16;

/// Has writes of L1 to its pages noticed.
pub(super) trait Watcher {
    /// Writes to watched pages, so far.
    fn writes(&self) -> u64;
    /// Has the next write to `page` noticed; `None` where that cannot be.
    fn watch(&self, page: GuestPhysAddr) -> Option<Watch>;
    /// The watch of `page`, unless it was written.
    fn watch_of(&self, page: GuestPhysAddr) -> Option<Watch>;
}

/// A frame with a page of L1's in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MergedPage {
    /// The frame.
    pub(super) frame: HostPhysAddr,
    source: Option<Source>,
    /// Times that a write was noticed, of the page that is in the frame.
    written: u8,
}

/// What is in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Source {
    page: GuestPhysAddr,
    /// `None` where the page is not watched.
    watch: Option<Watch>,
    /// [`Watcher::writes`] when the watch was last seen.
    writes: u64,
}

/// The machine: the hypervisor's memory, L1's, and its watches.
#[derive(Debug)]
pub(super) struct Pages<'a, M, G: ?Sized, W> {
    pub(super) memory: &'a M,
    pub(super) guest: &'a G,
    pub(super) watcher: &'a W,
}

impl MergedPage {
    /// Nothing is in `frame` yet.
    pub(super) const fn new(frame: HostPhysAddr) -> Self {
        Self { frame, source: None, written: 0 }
    }

    /// Whether it holds `page`, fresh or not.
    pub(super) fn is_of(&self, page: GuestPhysAddr) -> bool {
        self.source.is_some_and(|source| source.page == page)
    }

    /// Sees to it that the frame holds `page` of L1 and `own`, as they are now.
    #[inline]
    pub(super) fn refresh<M: PhysMemory, G: GuestMemory + ?Sized, W: Watcher>(
        &mut self,
        pages: &Pages<'_, M, G, W>,
        own: HostPhysAddr,
        page: GuestPhysAddr,
    ) {
        let is_fresh = self.source.is_some_and(|source| {
            source.page == page && source.watch.is_some() && source.writes == pages.watcher.writes()
        });
        if !is_fresh {
            self.look_again(pages, own, page);
        }
    }

    #[inline(never)]
    fn look_again<M: PhysMemory, G: GuestMemory + ?Sized, W: Watcher>(
        &mut self,
        pages: &Pages<'_, M, G, W>,
        own: HostPhysAddr,
        page: GuestPhysAddr,
    ) {
        let writes = pages.watcher.writes();
        if !self.is_of(page) {
            self.written = 0;
        }
        if let Some(source) = self.source.as_mut().filter(|source| source.page == page)
            && source.watch.is_some()
        {
            if pages.watcher.watch_of(page) == source.watch {
                source.writes = writes;
                return;
            }
            self.written = self.written.saturating_add(1);
        }
        // Watched before it is read: a write in between ends the watch.
        let watch = if self.written < PATIENCE { pages.watcher.watch(page) } else { None };
        merge(pages, own, page, self.frame);
        self.source = Some(Source { page, watch, writes });
    }
}

/// Puts `own` or `page` of L1 into `frame`, bit by bit; where L1 has no memory its bits are ones.
fn merge<M: PhysMemory, G: GuestMemory + ?Sized, W>(
    pages: &Pages<'_, M, G, W>,
    own: HostPhysAddr,
    page: GuestPhysAddr,
    frame: HostPhysAddr,
) {
    let at = |base: u64, offset: u64| HostPhysAddr::new(base + offset);
    for offset in (0..PAGE_BYTES).step_by(PIECE) {
        let mut wanted = [0; PIECE];
        if pages.guest.read(GuestPhysAddr::new(page.get() + offset), &mut wanted).is_err() {
            wanted = [0xff; PIECE];
        }
        let mut merged = [0; PIECE];
        pages.memory.read(at(own.get(), offset), &mut merged);
        let (words, _) = merged.as_chunks_mut::<8>();
        for (word, wanted) in words.iter_mut().zip(wanted.as_chunks::<8>().0) {
            *word = (u64::from_ne_bytes(*word) | u64::from_ne_bytes(*wanted)).to_ne_bytes();
        }
        pages.memory.write(at(frame.get(), offset), &merged);
    }
}

#[cfg(test)]
#[path = "merged_page_tests.rs"]
pub(super) mod tests;
