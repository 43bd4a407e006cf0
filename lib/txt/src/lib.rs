//! Structures of Intel Trusted Execution Technology, as data: authenticated code modules, configuration registers, the
//! heap, the header and page tables of a measured launched environment.
//!
//! Nothing here touches hardware, allocates or is unsafe, and nothing is believed: each structure is somebody's bytes, which
//! are read with their offsets, lengths and versions checked. The documents are the Intel Trusted Execution Technology
//! Software Development Guide ("TXT guide") and the Intel 64 and IA-32 Architectures Software Developer's Manual ("SDM"),
//! cited by section title.
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

pub mod acm;
mod bytes;
pub mod capabilities;
pub mod choice;
pub mod error_code;
pub mod heap;
pub mod mle_header;
pub mod mle_pages;
pub mod register;
pub mod status;
