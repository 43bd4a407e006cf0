//! What the PAL programs share: a start without a library, a console, PALs made of copied functions.
//!
//! The programs behave as the original's do, and lay out their PALs the same way: each section a page from the
//! system, readable, writable and executable, filled before it is registered. One source serves Linux and Windows,
//! 32 and 64 bits, and with the feature `l2` guests of guests. New programs are better off with `xmhf_pal::pal!`.
#![no_std]

pub mod arguments;
pub mod console;
pub mod functions;
pub mod random;
pub mod sections;
mod start;
#[cfg(target_os = "linux")]
pub mod ticks;

/// What a program says where there is no TrustVisor; then it exits with 1.
pub const ABSENT: &str = "Error: TrustVisor not present according to CPUID";

/// Makes `$main`, a function from [`arguments::Arguments`] to an exit status, the program. It runs only where
/// TrustVisor is.
#[macro_export]
macro_rules! program {
    ($main:path) => {
        // UNSAFETY: no other function has the name, as there is one program.
        #[allow(unsafe_code, reason = "the name that the start looks for")]
        #[unsafe(no_mangle)]
        extern "Rust" fn program_main(arguments: $crate::arguments::Arguments) -> u32 {
            if !xmhf_pal::is_present() {
                $crate::say!("{}\n", $crate::ABSENT);
                return 1;
            }
            $main(arguments)
        }
    };
}
