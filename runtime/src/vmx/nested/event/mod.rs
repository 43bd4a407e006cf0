//! Events for L1's processor: what waits for an entry into L2, what strikes L2, and what the hypervisor raises in it.

pub(super) mod delivery;
pub(super) mod init;
pub(super) mod l0_event;
pub(super) mod nmi;
pub(super) mod pending_entry;
