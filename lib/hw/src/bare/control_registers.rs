//! CR0 and CR4, and where exceptions are taken by.

use x86_64::registers::control::{Cr0, Cr4};

/// Reads CR0.
#[must_use]
pub fn cr0() -> u64 {
    Cr0::read_raw()
}

/// Reads CR4.
#[must_use]
pub fn cr4() -> u64 {
    Cr4::read_raw()
}

/// Loads CR0.
///
/// # Safety
///
/// Paging and write protection stay on, and memory is as it was.
pub unsafe fn set_cr0(value: u64) {
    // SAFETY: by the caller's duty.
    unsafe { Cr0::write_raw(value) }
}

/// Loads CR4.
///
/// # Safety
///
/// Addresses are translated as before, and what the value switches on has somebody to take its exceptions.
pub unsafe fn set_cr4(value: u64) {
    // SAFETY: by the caller's duty.
    unsafe { Cr4::write_raw(value) }
}

/// Returns the base of the interrupt descriptor table.
#[must_use]
pub fn idt_base() -> u64 {
    x86_64::instructions::tables::sidt().base.as_u64()
}
