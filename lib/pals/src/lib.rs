//! What TrustVisor keeps of PALs and decides about them.
//!
//! [`layout`] checks what is registered, [`registry`] keeps it, [`admission`] knows who may register, [`pal`] is one
//! PAL's life, [`marshal`] carries parameters; [`measurement`], [`signing`] and [`tpm`] are its microTPM, [`debug`] is what it prints. They reach processes and pages through the traits of [`machine`], so that they run in host tests.
//! What programs have to know is in the crate `trustvisor`, which needs no heap.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_macros))]
#![cfg_attr(
    test,
    expect(
        clippy::unwrap_used,
        clippy::cast_possible_truncation,
        reason = "tests may stop, and know their sizes"
    )
)]

extern crate alloc;

pub mod admission;
pub mod debug;
#[cfg(test)]
mod fake;
mod fallible;
pub mod layout;
mod lists;
pub mod machine;
pub mod marshal;
pub mod measurement;
pub mod page_map;
pub mod pal;
pub mod quota;
mod regions;
pub mod registry;
pub mod sharing;
pub mod signing;
pub mod tpm;
