//! The time-stamp counter.
#![expect(unsafe_code, reason = "RDTSC is an unsafe intrinsic")]
// UNSAFETY: one instruction without operands; the kernel leaves CR4.TSD clear.

/// Value of the time-stamp counter.
#[must_use]
pub fn ticks() -> u64 {
    #[cfg(target_arch = "x86")]
    use core::arch::x86::_rdtsc;
    #[cfg(target_arch = "x86_64")]
    use core::arch::x86_64::_rdtsc;
    // SAFETY: every processor that these programs run on has it.
    unsafe { _rdtsc() }
}
