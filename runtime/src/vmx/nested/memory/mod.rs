//! L2's memory: L1's tables ([`ept12`]), those that the processor uses instead ([`ept02`]), what an EPT violation of
//! L2 leads to, and L2's memory as the hypervisor's own handlers see it.

pub(super) mod ept02;
pub(super) mod ept12;
pub(super) mod ept_violation;
pub(super) mod l2;
pub(super) mod missing_page;
pub(super) mod translation;
pub(super) mod vpid;
