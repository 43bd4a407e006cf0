//! TrustVisor: pieces of application logic (PALs) that the operating system can neither read nor change.
//!
//! What a program and the hypapp agree on is here, for both: [`command`] the hypercalls, [`section`] and
//! [`parameter`] the two lists of a registration, [`status`] what a hypercall returns, [`call`] how a PAL is
//! entered, returns and fails, [`probe`] the CPUID leaf. All of it but the new error codes is as in the
//! original TrustVisor, for processes of either word size.
//!
//! The rest, with the feature `hypapp`, is the hypapp's logic: `layout` checks what is registered, `registry`
//! keeps it, `pal` is one PAL's life, `marshal` carries parameters, and `machine` is what they need of the
//! machine, so that they run in host tests.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

#[cfg(any(test, feature = "hypapp"))]
extern crate alloc;

pub mod call;
pub mod command;
#[cfg(test)]
mod fake;
#[cfg(any(test, feature = "hypapp"))]
pub mod layout;
#[cfg(any(test, feature = "hypapp"))]
pub mod machine;
#[cfg(any(test, feature = "hypapp"))]
pub mod marshal;
#[cfg(any(test, feature = "hypapp"))]
pub mod pal;
pub mod parameter;
pub mod probe;
#[cfg(any(test, feature = "hypapp"))]
pub mod registry;
pub mod section;
pub mod status;
