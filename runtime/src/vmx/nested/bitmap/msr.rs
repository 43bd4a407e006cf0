//! The MSR bitmap under which L2 runs: L1's and the hypervisor's, merged.
//!
//! The hypervisor's is the one that holds for L1: what is intercepted there, VMX MSRs and the MTRRs among
//! them, is intercepted for L2, and what L1 may reach without an exit L2 may, if L1 lets it. That goes for
//! the x2APIC's registers too: the local APIC is L1's own, and where L1 virtualizes it, the processor does.

use super::merged_page::{Kind, MergedPage, Pages, Watcher};
use crate::memory::guest::GuestMemory;
use hw::PhysMemory;
use x86::address::{GuestPhysAddr, HostPhysAddr};

/// Bitmaps of L1 that stay merged: one for each of the virtual processors that a CPU runs by turns.
pub(crate) const BITMAPS: usize = 4;

/// The merged bitmaps of one processor.
#[derive(Clone, Debug)]
pub(crate) struct MsrBitmaps {
    merged: [MergedPage; BITMAPS],
    /// The one to be given up next.
    oldest: usize,
}

impl MsrBitmaps {
    /// Nothing merged; the frames are the hypervisor's.
    pub(crate) fn new(frames: [HostPhysAddr; BITMAPS]) -> Self {
        Self { merged: frames.map(|frame| MergedPage::new(frame, Kind::Msr)), oldest: 0 }
    }

    /// Returns the frame that merges the hypervisor's bitmap at `l0` with L1's at `page`, as they are now.
    #[inline]
    pub(crate) fn of<M: PhysMemory, G: GuestMemory + ?Sized, W: Watcher>(
        &mut self,
        pages: &Pages<'_, M, G, W>,
        l0: HostPhysAddr,
        page: GuestPhysAddr,
    ) -> HostPhysAddr {
        let known = self.merged.iter().position(|merged| merged.is_of(page));
        let index = known.unwrap_or_else(|| self.give_up());
        let merged = &mut self.merged[index];
        merged.refresh(pages, l0, page);
        merged.frame
    }

    /// Follows, while L2 runs, where L1's bitmap at `page` may be written.
    pub(crate) fn follow<M: PhysMemory, G: GuestMemory + ?Sized, W: Watcher>(
        &mut self,
        pages: &Pages<'_, M, G, W>,
        l0: HostPhysAddr,
        page: GuestPhysAddr,
    ) {
        self.merged.iter_mut().for_each(|merged| merged.follow(pages, l0, page));
    }

    fn give_up(&mut self) -> usize {
        let index = self.oldest;
        self.oldest = (index + 1) % BITMAPS;
        index
    }
}

#[cfg(test)]
#[path = "msr_tests.rs"]
mod tests;
