//! Views: table roots over the same policy.
//!
//! Every CPU runs on the shared view until a hypapp opens another, whose protections override the shared
//! ones page by page; what a view does not say, the shared one does.

use arrayvec::ArrayVec;
use platform::handoff::CPU_CAPACITY;
use static_assertions::const_assert;
use x86::address::HostPhysAddr;

/// Most views besides the shared one that are open at a time.
pub const VIEW_CAPACITY: usize = 1024;

/// The name of a view.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct View(u64);

const_assert!(CPU_CAPACITY < 0xfff);

impl View {
    /// The view that all CPUs share.
    pub const SHARED: Self = Self(0);

    /// Returns the view for the CPU with this index alone.
    #[must_use]
    pub const fn of_cpu(index: usize) -> Self {
        assert!(index < CPU_CAPACITY, "there is no such CPU");
        Self(index as u64 + 1)
    }

    /// Below 2^12.
    pub(super) const fn number(self) -> u64 {
        self.0
    }
}

/// The open views and their root tables.
#[derive(Debug)]
pub(super) struct Roots {
    open: ArrayVec<(View, HostPhysAddr), VIEW_CAPACITY>,
}

impl Roots {
    pub(super) const fn new() -> Self {
        Self { open: ArrayVec::new_const() }
    }

    pub(super) fn get(&self, view: View) -> Option<HostPhysAddr> {
        self.open.iter().find(|o| o.0 == view).map(|o| o.1)
    }

    pub(super) fn is_full(&self) -> bool {
        self.open.is_full()
    }

    /// Adds an open view; there is room.
    pub(super) fn insert(&mut self, view: View, root: HostPhysAddr) {
        self.open.push((view, root));
    }

    pub(super) fn remove(&mut self, view: View) -> Option<HostPhysAddr> {
        let index = self.open.iter().position(|o| o.0 == view)?;
        Some(self.open.swap_remove(index).1)
    }

    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    /// Open view number `index`, below [`Self::len`].
    pub(super) fn at(&self, index: usize) -> (View, HostPhysAddr) {
        self.open[index]
    }
}
