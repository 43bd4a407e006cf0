//! The time-stamp counter, which counts instructions under the emulator.
#![expect(unsafe_code, reason = "RDTSC is an unsafe intrinsic")]
// UNSAFETY: one instruction without operands; the kernel leaves CR4.TSD clear.

/// Value of the time-stamp counter, in ticks since reset.
pub(crate) fn ticks() -> u64 {
    // SAFETY: every processor that runs this 64-bit program has RDTSC.
    unsafe { core::arch::x86_64::_rdtsc() }
}
