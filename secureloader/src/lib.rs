//! The secure loader: the measured code that checks what the bootloader hands over, verifies the runtime
//! against the digest in its own image, and enters it under W^X page tables.
//!
//! The decisions are here, free of hardware, and run in host tests: [`sanitize`] (the handoff), [`verify`]
//! (size, digest and layout of the runtime), [`digest`], [`paging`] (the runtime's address space), [`scratch`] (who owns
//! which page meanwhile). The image itself, entry code included, is the binary of this package. Everything
//! counts against the 64 KiB that a measured launch covers; the linker script asserts the limit.
#![cfg_attr(not(test), no_std)]
#![cfg_attr(test, expect(clippy::unwrap_used, reason = "a test may stop where it is"))]

pub mod console;
pub mod digest;
pub mod exception;
pub mod paging;
pub mod sanitize;
pub mod scratch;
pub mod verify;
