//! What devices may reach of the guest's memory.
//!
//! The core tells it here for each page that it takes from the guest's CPUs or gives back. What drives DMA-remapping
//! hardware (VT-d, "DMA Remapping") is to stand behind [`Remapping`]. Nothing does yet: with [`NoRemapping`] devices
//! reach all memory, and whoever relies on more is told so by [`Remapping::is_enforced`].

use x86::address::HostPhysAddr;

/// What devices may do with a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeviceAccess {
    /// Read and write it.
    Open,
    /// Nothing.
    Closed,
}

/// What keeps devices from memory.
pub(crate) trait Remapping {
    /// Returns whether devices are held to what is set.
    fn is_enforced(&self) -> bool;
    /// Sets what devices may do with a page, from the next [`Remapping::flush`] on.
    fn set_access(&self, page: HostPhysAddr, access: DeviceAccess);
    /// Returns when no device goes by what was set before.
    fn flush(&self);
}

/// The machine's: none.
pub(crate) static REMAPPING: NoRemapping = NoRemapping;

/// No remapping hardware that is driven.
#[derive(Debug)]
pub(crate) struct NoRemapping;

impl Remapping for NoRemapping {
    fn is_enforced(&self) -> bool {
        false
    }

    fn set_access(&self, _page: HostPhysAddr, _access: DeviceAccess) {}

    fn flush(&self) {}
}
