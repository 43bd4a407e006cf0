//! The processor's random numbers (SDM, "Random Number Generator Instructions").

use super::Processor;
use crate::Cpuid;
use core::arch::asm;
use x86::cpuid::{Leaf1Ecx, Leaf7Ebx};

/// The generators that the processor has.
#[derive(Clone, Copy, Debug)]
pub struct Generators {
    has_rdseed: bool,
    has_rdrand: bool,
}

impl Generators {
    /// Asks CPUID.
    #[must_use]
    pub fn find() -> Self {
        let has_leaf_7 = Processor.cpuid(0, 0).eax >= 7;
        Self {
            has_rdseed: has_leaf_7 && Processor.cpuid(7, 0).ebx & Leaf7Ebx::RDSEED.bits() != 0,
            has_rdrand: Processor.cpuid(1, 0).ecx & Leaf1Ecx::RDRAND.bits() != 0,
        }
    }

    /// RDSEED, once; `None` where the processor lacks it or has no number now.
    #[must_use]
    pub fn rdseed(self) -> Option<u64> {
        if !self.has_rdseed {
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
    pub fn rdrand(self) -> Option<u64> {
        if !self.has_rdrand {
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
}
