//! A VMX instruction in any mode and form, whatever comes of it.

use super::instruction::{self, Failure};
use crate::{Fault, Mode, Regs, Snippet, run};

/// What became of a VMX instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// VMsucceed.
    Done,
    /// VMfail.
    Failed(Failure),
    /// The exception that it raised, with nothing changed.
    Fault(Fault),
    /// Flags that the SDM's conventions do not know.
    Flags(u64),
}

impl Outcome {
    /// VMfailInvalid.
    pub const INVALID: Self = Self::Failed(Failure::Invalid);
    /// Invalid opcode.
    pub const UD: Self = Self::Fault(Fault::UD);
    /// General protection, error code 0.
    pub const GP: Self = Self::Fault(Fault::GP);

    /// VMfailValid with the VM-instruction error `number`.
    pub const fn valid(number: u32) -> Self {
        Self::Failed(Failure::Valid(number))
    }

    /// A page fault with `error_code`.
    pub const fn page_fault(error_code: u32) -> Self {
        Self::Fault(Fault { vector: 14, error_code })
    }
}

const CARRY: u64 = 1;
const ZERO: u64 = 1 << 6;
/// Carry, parity, auxiliary carry, zero, sign and overflow (SDM, "Conventions" of the VMX instructions).
const STATUS: u64 = 0x8d5;

/// Executes `code`, which begins with a VMX instruction, in `mode` with every status flag set before it.
pub fn attempt(mode: Mode, code: Snippet, regs: &mut Regs) -> Outcome {
    regs.rflags |= STATUS;
    let before = *regs;
    if let Err(fault) = run(mode, code, regs) {
        let same =
            Regs { rflags: before.rflags | 2, rip: 0, rsp: regs.rsp, cs: regs.cs, cr2: regs.cr2, ..before };
        let seen = Regs { rflags: regs.rflags & !(1 << 16), ..*regs };
        crate::check_eq!(seen, same, "registers after a fault");
        return Outcome::Fault(fault);
    }
    match regs.rflags & STATUS {
        0 => Outcome::Done,
        CARRY => Outcome::INVALID,
        ZERO => Outcome::valid(instruction::read(super::vmcs::INSTRUCTION_ERROR)),
        flags => Outcome::Flags(flags),
    }
}

/// Executes `code` in 64-bit mode at CPL 0 with `regs`.
pub fn attempt_with(code: Snippet, mut regs: Regs) -> Outcome {
    attempt(Mode::Kernel64, code, &mut regs)
}
