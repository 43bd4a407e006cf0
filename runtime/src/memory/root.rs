//! Roots of second-level tables.

use x86::address::HostPhysAddr;

/// Root of second-level tables that a guest may be put under: this module's tables give it no memory of the hypervisor's,
/// and nobody else can make one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableRoot(HostPhysAddr);

impl TableRoot {
    /// `table` is a root of tables that are kept here.
    pub(super) const fn new(table: HostPhysAddr) -> Self {
        Self(table)
    }

    /// The table.
    #[must_use]
    pub const fn table(self) -> HostPhysAddr {
        self.0
    }
}
