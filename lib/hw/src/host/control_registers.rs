//! CR0 and CR4 of the processor that a thread is, which change nothing.

use super::own;

/// Reads CR0.
#[must_use]
pub fn cr0() -> u64 {
    own(|cpu| cpu.cr0)
}

/// Reads CR4.
#[must_use]
pub fn cr4() -> u64 {
    own(|cpu| cpu.cr4)
}

/// Loads CR0.
///
/// # Safety
///
/// As on the real machine.
pub unsafe fn set_cr0(value: u64) {
    own(|cpu| cpu.cr0 = value);
}

/// Loads CR4.
///
/// # Safety
///
/// As on the real machine.
pub unsafe fn set_cr4(value: u64) {
    own(|cpu| cpu.cr4 = value);
}

/// Returns the base of the interrupt descriptor table: there is none.
#[must_use]
pub const fn idt_base() -> u64 {
    0
}
