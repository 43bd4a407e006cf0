//! The processor's random numbers (SDM, "Random Number Generator Instructions").

use super::Processor;
use crate::Cpuid;
use core::arch::asm;

/// CPUID leaf 7, EBX.
const RDSEED: u32 = 1 << 18;
/// CPUID leaf 1, ECX.
const RDRAND: u32 = 1 << 30;

/// RDSEED, once; `None` where the processor lacks it or has no number now.
#[must_use]
pub fn rdseed() -> Option<u64> {
    if Processor.cpuid(7, 0).ebx & RDSEED == 0 {
        return None;
    }
    let (word, came): (u64, u8);
    // SAFETY: the processor has the instruction, which changes the register and flags alone.
    unsafe {
        asm!("rdseed {word}", "setc {came}", word = out(reg) word, came = out(reg_byte) came,
            options(nomem, nostack));
    }
    (came != 0).then_some(word)
}

/// RDRAND, once; `None` where the processor lacks it or has no number now.
#[must_use]
pub fn rdrand() -> Option<u64> {
    if Processor.cpuid(1, 0).ecx & RDRAND == 0 {
        return None;
    }
    let (word, came): (u64, u8);
    // SAFETY: the processor has the instruction, which changes the register and flags alone.
    unsafe {
        asm!("rdrand {word}", "setc {came}", word = out(reg) word, came = out(reg_byte) came,
            options(nomem, nostack));
    }
    (came != 0).then_some(word)
}
