//! Intel virtual-machine extensions: the SDM's volume 3C as types.

pub mod vmcs;
