//! PALs: pieces of a program that the operating system beneath it can neither read nor change.
//!
//! A PAL is a small program of its own, one function with what it calls, that TrustVisor hides from everything
//! else on the machine. Inside it, [`entry!`] names the function, and [`microtpm`] has what belongs to the PAL
//! alone. Outside, [`pal!`] makes a type of it: `register` maps and hides it, `call` runs it, dropping it gives
//! the memory back. Beneath are [`Image`], a PAL's file; [`Registration`], sections and parameters of any
//! making; [`hypercall`], the bare calls. Every [`Error`] says what to do. `README.md` has a whole example.
//!
//! Works without a standard library and on systems of either word size: Linux by system calls of its own, Windows
//! by kernel32.
#![cfg_attr(not(test), no_std)]
#![cfg_attr(test, expect(clippy::unwrap_used, reason = "a test may stop where it is"))]

pub mod argument;
mod call;
mod entry;
mod error;
pub mod hypercall;
pub mod image;
pub mod memory;
pub mod microtpm;
mod pal;
pub mod registration;
pub mod system;

pub use argument::{Argument, Words};
pub use error::{Error, Fault};
pub use hypercall::{is_present, pal_number};
pub use image::{Image, ImageError};
pub use pal::Pal;
pub use registration::{Registration, Sections};
pub use trustvisor;

/// Bytes of a page.
pub const PAGE_SIZE: usize = 4096;
