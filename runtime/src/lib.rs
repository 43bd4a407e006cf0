//! The hypervisor: a library that a hypapp is linked with to make the runtime image.
//!
//! Key types: [`hypapp::Hypapp`], what a hypapp implements; [`vcpu::Vcpu`], a guest's processor;
//! [`exit::Exit`] and [`exit::Action`], why it left the guest and what comes next. Decisions live in
//! `exit` and `memory`, in no vendor's words, and run in host tests; what drives them on the bare machine
//! is compiled for it alone.
#![cfg_attr(not(any(test, fuzzing)), no_std)]
#![cfg_attr(
    test,
    expect(
        clippy::unwrap_used,
        clippy::cast_possible_truncation,
        reason = "a test may stop at what it did not expect"
    )
)]

mod disposition;
pub mod exit;
mod features;
mod guest_start;
pub mod hypapp;
pub mod memory;
pub mod reset;
pub mod vcpu;

mod dma;
pub mod entry;
mod exception;
mod log;
mod log_limit;
mod machine;
mod panic;
mod patience;
mod policies;
mod ring;
pub mod services;
mod smp;
pub mod speculation;
mod stop;
mod summary;
mod vendor;
mod vmx;

pub use platform::handoff::Handoff;
/// The format of this processor's second-level tables.
use vmx::SecondLevelFormat;
/// The processor's vendor: the bootloader refuses every other.
use vmx::VMX as VENDOR;
#[cfg(any(test, fuzzing))]
pub use vmx::model;
