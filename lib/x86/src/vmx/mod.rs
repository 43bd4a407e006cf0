//! Intel virtual-machine extensions: the SDM's volume 3C as types.

pub mod bitmap;
pub mod capability;
pub mod controls;
pub mod ept;
pub mod ept_entry;
pub mod exit_qualification;
pub mod exit_reason;
pub mod instruction_error;
pub mod instruction_information;
pub mod interruption;
pub mod needed;
pub mod vmcs;
