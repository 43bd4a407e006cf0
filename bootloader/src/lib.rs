//! The bootloader: finds its modules and the CPUs, picks a place, hides it, launches.
//!
//! It is not trusted: the secure loader checks whatever this code hands over. Everything that decides
//! something is here, over traits, and tested on the host; the binary beside it (`main.rs`) holds what
//! touches the machine. Key types: [`stop::Stop`], every way in which a boot is refused;
//! [`plan::make`], what a boot will do; [`platform::launch::Launch`], how it ends. Neighbours: GRUB before
//! it, the secure loader after it, which meets it in `platform::handoff`.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
#![cfg_attr(test, expect(clippy::unwrap_used, reason = "tests may stop"))]

pub mod plan;
pub mod remapping;
pub mod requirements;
pub mod screen;
pub mod serial;
pub mod stop;
