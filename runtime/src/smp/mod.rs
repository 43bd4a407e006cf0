//! Many CPUs: their data, their start, and how one of them stops all others.

pub(crate) mod percpu;
pub(crate) mod quiesce;
pub(crate) mod shootdown;
pub(crate) mod startup;

pub use quiesce::Quiesced;
