//! The tables under which L2 runs: what L1's tables and the hypervisor's both allow, filled on faults.
//!
//! [`cache`] keeps them by L1's EPT pointers, in tables ([`tables`]) of frames of their own ([`pool`]).
//! [`access::Access::serve`] fills them; `machine_cache` has the one cache of the machine.
//!
//! The memory type of a page is that of L1's entry, with its "ignore PAT" flag: where EPT is in use the MTRRs
//! have no part in a guest's accesses (SDM, "Memory Type Used for Translated Guest-Physical Addresses"), and L1
//! sees to what its MTRRs say when it fills its tables, as on a bare machine.

pub(in crate::vmx) mod access;
pub(in crate::vmx) mod cache;
mod filter;
pub(crate) mod machine_cache;
mod pool;
mod tables;

#[cfg(test)]
mod cost_tests;
#[cfg(test)]
mod fixture;
#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod tests;
