//! From the system's entry to the program and back.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
pub(crate) use linux::{exit, write};
#[cfg(windows)]
mod windows;
#[cfg(windows)]
pub(crate) use windows::{exit, write};

use core::panic::PanicInfo;

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    crate::say!("{info}\n");
    exit(134)
}
