//! TrustVisor: pieces of application logic (PALs) that the operating system can neither read nor change.
//!
//! What a program and the hypapp agree on is here, for both: [`command`] the hypercalls, [`section`] and
//! [`parameter`] the two lists of a registration, [`status`] what a hypercall returns, [`call`] how a PAL is
//! entered, returns and fails, [`probe`] the CPUID leaf. All of it but the new error codes, and the hypercalls from 14
//! on with their [`flags`], [`admission`] and [`signature`], is as in the original TrustVisor, for processes of either word size.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod admission;
pub mod call;
pub mod command;
pub mod flags;
pub mod parameter;
pub mod probe;
pub mod section;
pub mod signature;
pub mod status;
