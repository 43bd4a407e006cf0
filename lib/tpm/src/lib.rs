//! Trusted Platform Modules, version 2.0: their registers, the commands that a measured launch needs, and the log of what
//! was measured.
//!
//! Nothing here allocates or is unsafe. A TPM is somebody else's device: each wait has an end and each answer is checked,
//! so that one which is stuck, cuts its answers or lies about their size ends in an error with a name. The documents are
//! the TCG's PC Client Platform TPM Profile ("PTP"), TPM 2.0 Library parts 1 to 3, and PC Client Platform Firmware Profile,
//! cited by section title.
//!
//! The commands are written here rather than taken from a crate: a launch needs some twenty, and the crates for all
//! commands bring ten times the code, with `unsafe` in it, into what is measured.
#![cfg_attr(not(any(test, feature = "sim")), no_std)]
#![forbid(unsafe_code)]
#![cfg_attr(
    test,
    expect(
        clippy::unwrap_used,
        clippy::cast_possible_truncation,
        reason = "tests may stop, and know their sizes"
    )
)]

pub mod algorithm;
mod answer;
mod command;
pub mod crb;
pub mod device;
pub mod error;
pub mod event_log;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
pub mod tis;
pub mod tpm2;
