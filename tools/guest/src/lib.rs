//! Bare test guests: tiny operating systems of one behaviour each, under `src/bin`.
//!
//! A guest starts from its own disk's boot sector, on the bare machine or as the hypervisor's guest, tries
//! something, compares what it saw with what the processor must do, prints `PASS NAME` or `FAIL NAME: why`
//! and cuts the power. Because the same disk runs on the bare machine, an expectation is the processor's own
//! behaviour and never the hypervisor's.
//!
//! Key pieces: [`guest!`] makes an entry point; [`check!`] and [`check_eq!`] count; [`snippet!`] holds
//! instructions, and [`run()`] executes them in any [`Mode`] with every fault caught; [`smp`] starts other
//! processors; [`vmx`] makes the guest a hypervisor of its own. What the machine must have is said in the
//! first lines of a guest's file, see `tools/src/bare_guest.rs`.
#![no_std]
#![expect(
    clippy::cast_possible_truncation,
    reason = "registers hold narrower values, addresses are below 4 GiB"
)]

pub mod acpi;
pub mod apic;
pub mod bench;
pub mod boot;
pub mod canary;
pub mod check;
pub mod cmos;
pub mod console;
pub mod cpu;
pub mod dma;
pub mod latency;
pub mod legacy;
pub mod memory;
pub mod pal;
pub mod pal_code;
pub mod power;
pub mod reset;
pub mod run;
pub mod smp;
pub mod space;
mod start;
pub mod trap;
pub mod vmx;

pub use run::{Fault, Mode, Regs, Snippet, run};

/// Makes `$main`, a `fn()`, the guest's story. Its verdict is printed when it returns.
#[macro_export]
macro_rules! guest {
    ($main:path) => {
        #[unsafe(no_mangle)]
        extern "C" fn guest_main() {
            $crate::check::begin(env!("CARGO_BIN_NAME"));
            $main();
        }
    };
}
