//! Firmware and boot structures, as data: what GRUB, the BIOS and our own images hand over.
//!
//! Nothing here touches hardware; every decision over these structures is a plain function that runs
//! in a host test. Key types: [`handoff::Handoff`] (bootloader to secure loader to runtime) and
//! [`handoff::ImageHeader`] (what the runtime image says of itself).
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

pub mod acpi;
pub mod command_line;
pub mod e820;
pub mod ecam;
pub mod handoff;
pub mod launch;
pub mod modules;
pub mod mp_table;
pub mod mtrr_map;
pub mod multiboot;
pub mod near_miss;
mod number;
pub mod physical;
pub mod placement;
mod power_ports;
pub mod processors;
pub mod remains;
pub mod serial;
#[cfg(test)]
mod warnings;
