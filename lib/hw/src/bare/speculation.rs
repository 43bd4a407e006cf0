//! Barriers against speculation that are instructions, not MSRs (SDM, "Speculative Execution Side Channels").

use super::Processor;
use crate::Barriers;
use core::arch::asm;

impl Barriers for Processor {
    #[inline(never)]
    fn fill_return_stack(&self) {
        // SAFETY: 32 return addresses go on the stack and are taken off it again; there is no red zone, and no other
        // memory is touched.
        unsafe {
            asm!(
                "mov {count:e}, 32",
                "2: call 4f",
                // Only a mispredicted return comes here.
                "3: lfence",
                "jmp 3b",
                "4: dec {count:e}",
                "jnz 2b",
                "add rsp, 32 * 8",
                // Nothing that follows begins before the stack is filled.
                "lfence",
                count = out(reg) _,
            );
        }
    }

    #[inline]
    fn overwrite_buffers(&self) {
        let selector: u16;
        // SAFETY: reads a register.
        unsafe { asm!("mov {0:x}, ss", out(reg) selector, options(nomem, nostack, preserves_flags)) }
        // The form with a memory operand alone overwrites buffers; SS is a data segment that can be written.
        // SAFETY: VERW changes ZF alone.
        unsafe { asm!("verw word ptr [{}]", in(reg) &raw const selector, options(readonly, nostack)) }
    }
}
