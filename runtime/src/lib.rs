//! The hypervisor: a library that a hypapp is linked with to make the runtime image.
#![cfg_attr(not(test), no_std)]

pub mod exit;
pub mod hypapp;
pub mod vcpu;
