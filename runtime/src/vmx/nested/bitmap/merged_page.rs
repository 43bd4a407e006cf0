//! Frames that hold a page of L1's bitmaps and one of the hypervisor's, merged: a bit is set where either
//! wants the exit.
//!
//! A frame stays good until L1's page is written, which is noticed ([`crate::memory::watch`]) before it happens;
//! nothing is scanned at an entry of L2. From then on to the next entry of L2 the frame has everything exit, and what
//! L1's page says at each exit counts: L2, which may share L1's memory, or another processor can write a page that is in
//! use. The same goes for a page that cannot be watched, or that is written again and again. Writes by devices are not
//! noticed; no system has a device write its bitmaps.

use crate::memory::guest::GuestMemory;
use crate::memory::watch::Watch;
use hw::PhysMemory;
use x86::address::{GuestPhysAddr, HostPhysAddr};
use x86::msr::Msr;
use x86::paging::PAGE_SIZE;

const PIECE: usize = 512;
/// Writes after which a page is not watched any more.
const PATIENCE: u8 = 16;

/// Watches pages for writes of L1.
pub(crate) trait Watcher {
    /// Writes to watched pages, so far.
    fn writes(&self) -> u64;
    /// Watches `page` for the next write; returns `None` where that cannot be.
    fn watch(&self, page: GuestPhysAddr) -> Option<Watch>;
    /// Returns the watch of `page`, unless it was written.
    fn watch_of(&self, page: GuestPhysAddr) -> Option<Watch>;
}

/// What a bitmap is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Ports.
    Io,
    /// MSRs. Those of an x2APIC the processor may virtualize, which nobody else can do: they exit as L1's page said when
    /// it was last read.
    Msr,
}

impl Kind {
    /// Returns the bits that are set in the byte at `offset` while the page is not watched.
    const fn unwatched(self, offset: u64) -> u8 {
        const READ: u64 = (Msr::X2APIC_FIRST.0 / 8) as u64;
        const WRITE: u64 = 0x800 + READ;
        const BYTES: u64 = 0x100 / 8;
        match self {
            Self::Msr if offset >= READ && offset < READ + BYTES => 0,
            Self::Msr if offset >= WRITE && offset < WRITE + BYTES => 0,
            _ => 0xff,
        }
    }
}

/// A frame with a page of L1's in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MergedPage {
    /// The frame.
    pub(crate) frame: HostPhysAddr,
    kind: Kind,
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
pub(crate) struct Pages<'a, M, G: ?Sized, W> {
    pub(crate) memory: &'a M,
    pub(crate) guest: &'a G,
    pub(crate) watcher: &'a W,
}

impl MergedPage {
    /// Nothing is in `frame` yet.
    pub(crate) const fn new(frame: HostPhysAddr, kind: Kind) -> Self {
        Self { frame, kind, source: None, written: 0 }
    }

    /// Returns whether it holds `page`, fresh or not.
    pub(crate) fn is_of(&self, page: GuestPhysAddr) -> bool {
        self.source.is_some_and(|source| source.page == page)
    }

    /// Sees to it that the frame holds `page` of L1 and the hypervisor's at `l0`, as they are now, at an entry of L2.
    #[inline]
    pub(crate) fn refresh<M: PhysMemory, G: GuestMemory + ?Sized, W: Watcher>(
        &mut self,
        pages: &Pages<'_, M, G, W>,
        l0: HostPhysAddr,
        page: GuestPhysAddr,
    ) {
        let is_fresh = self.source.is_some_and(|source| {
            source.page == page && source.watch.is_some() && source.writes == pages.watcher.writes()
        });
        if !is_fresh {
            self.look_again(pages, l0, page);
        }
    }

    #[inline(never)]
    fn look_again<M: PhysMemory, G: GuestMemory + ?Sized, W: Watcher>(
        &mut self,
        pages: &Pages<'_, M, G, W>,
        l0: HostPhysAddr,
        page: GuestPhysAddr,
    ) {
        // Counted before anything is looked at: a write from here on leaves the count behind, and the next entry looks again.
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
        self.merge(pages, l0, page, watch.is_some());
        self.source = Some(Source { page, watch, writes });
    }

    /// Sees to it that L2, which runs on, exits for what L1's page is going to say where that may be written.
    pub(crate) fn follow<M: PhysMemory, G: GuestMemory + ?Sized, W: Watcher>(
        &mut self,
        pages: &Pages<'_, M, G, W>,
        l0: HostPhysAddr,
        page: GuestPhysAddr,
    ) {
        let writes = pages.watcher.writes();
        let Some(source) = self.source.as_mut().filter(|source| source.page == page) else { return };
        if source.watch.is_none() || source.writes == writes {
            return;
        }
        if pages.watcher.watch_of(page) == source.watch {
            source.writes = writes;
            return;
        }
        // The page is about to be written, by L2 itself perhaps: from here to the next entry of L1's every access exits, and
        // what the page says then counts.
        source.watch = None;
        self.written = self.written.saturating_add(1);
        self.merge(pages, l0, page, false);
    }

    /// ORs the hypervisor's page at `l0` and `page` of L1 into the frame; where L1 has no memory its bits are ones.
    fn merge<M: PhysMemory, G: GuestMemory + ?Sized, W>(
        &self,
        pages: &Pages<'_, M, G, W>,
        l0: HostPhysAddr,
        page: GuestPhysAddr,
        is_watched: bool,
    ) {
        let at = |base: u64, offset: u64| HostPhysAddr::new(base + offset);
        for offset in (0..PAGE_SIZE).step_by(PIECE) {
            let mut wanted = [0; PIECE];
            if pages.guest.read(GuestPhysAddr::new(page.get() + offset), &mut wanted).is_err() {
                wanted = [0xff; PIECE];
            }
            if !is_watched {
                for (byte, offset) in wanted.iter_mut().zip(offset..) {
                    *byte |= self.kind.unwatched(offset);
                }
            }
            let mut merged = [0; PIECE];
            pages.memory.read(at(l0.get(), offset), &mut merged);
            let (words, _) = merged.as_chunks_mut::<8>();
            for (word, wanted) in words.iter_mut().zip(wanted.as_chunks::<8>().0) {
                *word = (u64::from_ne_bytes(*word) | u64::from_ne_bytes(*wanted)).to_ne_bytes();
            }
            pages.memory.write(at(self.frame.get(), offset), &merged);
        }
    }
}

#[cfg(test)]
#[path = "merged_page_tests.rs"]
pub(crate) mod tests;
