//! Firmware and boot structures, as data: what GRUB, the BIOS and our own images hand over.
//!
//! Nothing here touches hardware; every decision over these structures is a plain function that runs
//! in a host test. Key types: [`handoff::Handoff`] (bootloader to secure loader to runtime) and
//! [`handoff::ImageHeader`] (what the runtime image says of itself).
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod handoff;
