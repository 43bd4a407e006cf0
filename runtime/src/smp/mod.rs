//! Many CPUs: their data, their start, and how one of them stops all others.

pub(crate) mod call;
#[cfg(target_os = "none")]
pub(crate) mod cpus;
#[cfg(target_os = "none")]
pub(crate) mod ipi;
#[cfg(target_os = "none")]
mod pending_events;
#[cfg(target_os = "none")]
pub(crate) mod percpu;
#[cfg(target_os = "none")]
pub(crate) mod quiesce;
pub(crate) mod roster;
pub(crate) mod running;
#[cfg(target_os = "none")]
pub(crate) mod shootdown;
#[cfg(target_os = "none")]
mod stale;
#[cfg(target_os = "none")]
pub(crate) mod startup;

#[cfg(target_os = "none")]
pub use quiesce::Quiesced;
