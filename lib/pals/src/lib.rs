//! What TrustVisor keeps of PALs and decides about them.
//!
//! [`layout`] checks what is registered, [`registry`] keeps it, [`pal`] is one PAL's life, [`marshal`] carries
//! parameters; [`measurement`] and [`tpm`] are its microTPM. They reach processes and pages through the traits of [`machine`], so that they run in host tests.
//! What programs have to know is in the crate `trustvisor`, which needs no heap.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
#![cfg_attr(
    test,
    expect(
        clippy::unwrap_used,
        clippy::cast_possible_truncation,
        reason = "tests may stop, and know their sizes"
    )
)]

extern crate alloc;

#[cfg(test)]
mod fake;
pub mod layout;
pub mod machine;
pub mod marshal;
pub mod measurement;
pub mod pal;
pub mod registry;
pub mod sharing;
pub mod tpm;
