//! The tables under which L2 runs: what L1's tables and the hypervisor's both allow, filled on faults.

use x86::address::GuestPhysAddr;

/// An access of L2 that its tables did not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Access {
    /// Guest-physical address in L2.
    pub(super) gpa: GuestPhysAddr,
    /// The hardware's exit qualification, of which the bits that say what the access was are kept for L1.
    pub(super) qualification: u64,
}

/// What became of an access of L2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The tables allow it now: L2 goes on.
    Mapped,
    /// L1's tables forbid it: an EPT violation for L1, with this exit qualification.
    Violation {
        /// For VMCS12: the bits of the access from the hardware, those of the rights from L1's tables.
        qualification: u64,
    },
    /// L1's tables hold a misconfigured entry: an EPT misconfiguration for L1.
    Misconfiguration,
    /// L1's tables allow it, the hypervisor's do not: a violation at this address of L1's memory.
    Ept01(GuestPhysAddr),
}
