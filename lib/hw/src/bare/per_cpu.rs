//! The one pointer by which code finds the data of the processor that executes it: the GS base.

use core::arch::asm;
use x86_64::VirtAddr;
use x86_64::registers::model_specific::GsBase;

/// Makes `data` what [`data`] returns on this processor.
///
/// # Safety
///
/// The first word at `data` is `data` itself, for ever.
pub unsafe fn set_data(data: *const ()) {
    GsBase::write(VirtAddr::from_ptr(data));
}

/// Returns this processor's data.
///
/// # Safety
///
/// [`set_data`] was called on this processor.
#[inline(always)]
#[must_use]
pub unsafe fn data() -> *const () {
    let data;
    // SAFETY: by the caller's duty, a word that never changes.
    unsafe { asm!("mov {}, gs:[0]", out(reg) data, options(pure, readonly, nostack, preserves_flags)) };
    data
}
