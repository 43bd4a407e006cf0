//! The call to a hypapp, at ring 3.
#![expect(unsafe_code, reason = "VMCALL is an instruction that Rust has no function for")]
// UNSAFETY: a hypapp changes no register but those it answers in; without one the process dies of #UD.

use std::arch::asm;

/// General registers that carry a call and its answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Registers {
    pub(super) rax: u64,
    pub(super) rbx: u64,
    pub(super) rcx: u64,
    pub(super) rdx: u64,
}

/// Calls the hypapp with `inputs` and returns what the registers hold afterwards.
pub(super) fn vmcall(inputs: Registers) -> Registers {
    let Registers { mut rax, mut rbx, mut rcx, mut rdx } = inputs;
    // SAFETY: reads and writes registers alone; RBX, which the compiler keeps, is given back.
    unsafe {
        asm!(
            "xchg {rbx}, rbx",
            "vmcall",
            "xchg {rbx}, rbx",
            rbx = inout(reg) rbx,
            inout("rax") rax,
            inout("rcx") rcx,
            inout("rdx") rdx,
        );
    }
    Registers { rax, rbx, rcx, rdx }
}
