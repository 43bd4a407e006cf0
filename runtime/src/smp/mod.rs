//! Many CPUs: their data, their start, and how one of them stops all others.

pub(crate) mod call;
pub(crate) mod cpus;
pub(crate) mod ipi;
pub(crate) mod peer;
mod pending_events;
pub(crate) mod percpu;
pub(crate) mod quiesce;
pub(crate) mod rendezvous;
pub(crate) mod roster;
pub(crate) mod running;
pub(crate) mod shootdown;
mod stale;
pub(crate) mod startup;
pub(crate) mod watched_events;

pub use quiesce::Quiesced;
