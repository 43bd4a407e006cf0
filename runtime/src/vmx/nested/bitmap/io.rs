//! The I/O bitmaps under which L2 runs: L1's and the hypervisor's, merged.

use super::merged_page::{Kind, MergedPage, Pages, Watcher};
use crate::memory::guest::GuestMemory;
use hw::PhysMemory;
use x86::address::{GuestPhysAddr, HostPhysAddr};
use x86::paging::PAGE_SIZE;

/// The merged bitmaps A and B of one processor.
#[derive(Clone, Debug)]
pub(crate) struct IoBitmaps {
    merged: [MergedPage; 2],
}

impl IoBitmaps {
    /// Nothing merged, in the two frames from `frames` on.
    pub(crate) const fn new(frames: HostPhysAddr) -> Self {
        let second = HostPhysAddr::new(frames.get() + PAGE_SIZE);
        Self { merged: [MergedPage::new(frames, Kind::Io), MergedPage::new(second, Kind::Io)] }
    }

    /// The first of two frames that merge the hypervisor's two from `l0` on with L1's bitmaps A and B at `wanted`, as they
    /// are now.
    #[inline]
    pub(crate) fn of<M: PhysMemory, G: GuestMemory + ?Sized, W: Watcher>(
        &mut self,
        pages: &Pages<'_, M, G, W>,
        l0: HostPhysAddr,
        wanted: [GuestPhysAddr; 2],
    ) -> HostPhysAddr {
        let [a, b] = &mut self.merged;
        a.refresh(pages, l0, wanted[0]);
        b.refresh(pages, HostPhysAddr::new(l0.get() + PAGE_SIZE), wanted[1]);
        a.frame
    }

    /// Follows, while L2 runs, where one of L1's bitmaps at `wanted` may be written.
    pub(crate) fn follow<M: PhysMemory, G: GuestMemory + ?Sized, W: Watcher>(
        &mut self,
        pages: &Pages<'_, M, G, W>,
        l0: HostPhysAddr,
        wanted: [GuestPhysAddr; 2],
    ) {
        let [a, b] = &mut self.merged;
        a.follow(pages, l0, wanted[0]);
        b.follow(pages, HostPhysAddr::new(l0.get() + PAGE_SIZE), wanted[1]);
    }
}

#[cfg(test)]
#[path = "io_tests.rs"]
mod tests;
