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
#![cfg_attr(fuzzing, expect(dead_code, reason = "fuzzing enters the models alone"))]

#[cfg(any(test, target_os = "none"))]
mod disposition;
pub mod exit;
#[cfg(any(test, target_os = "none"))]
mod features;
pub mod hypapp;
pub mod memory;
pub mod reset;
pub mod vcpu;

#[cfg(target_os = "none")]
mod dma;
#[cfg(target_os = "none")]
pub mod entry;
#[cfg(target_os = "none")]
mod exception;
#[cfg(target_os = "none")]
mod log;
#[cfg(any(test, target_os = "none"))]
mod log_limit;
#[cfg(target_os = "none")]
mod machine;
#[cfg(target_os = "none")]
mod panic;
#[cfg(target_os = "none")]
mod policies;
#[cfg(any(test, target_os = "none"))]
mod ring;
#[cfg(target_os = "none")]
pub mod services;
#[cfg(any(test, target_os = "none"))]
mod smp;
pub mod speculation;
#[cfg(target_os = "none")]
mod stop;
#[cfg(target_os = "none")]
mod summary;
#[cfg(any(test, target_os = "none"))]
#[cfg_attr(test, expect(dead_code, reason = "the machine's to call"))]
mod vendor;
#[cfg(any(test, fuzzing, target_os = "none"))]
mod vmx;

pub use platform::handoff::Handoff;
/// The format of this processor's second-level tables.
#[cfg(target_os = "none")]
use vmx::SecondLevelFormat;
/// The processor's vendor: the bootloader refuses every other.
#[cfg(target_os = "none")]
use vmx::VMX as VENDOR;
#[cfg(any(test, fuzzing))]
pub use vmx::model;
