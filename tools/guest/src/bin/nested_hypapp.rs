//! What a hypapp is told of nesting: each entry into a guest of the guest, and each exit to its hypervisor.
//! hypapp: intercept
//! bare: no
#![no_std]
#![no_main]

use guest::cpu::cpuid;
use guest::vmx::prelude::*;
use guest::vmx::verdict::GUEST_STATE;
use guest::{Mode, Regs, run, snippet};

guest!(main);

const SELECTOR: u64 = 0x494e_5443;
const TIMES: u64 = 5;

fn main() {
    enter_operation();
    let mut nested = Guest::new(execute);
    check_eq!(counts(), (0, 0), "before the first entry");
    for index in 0..TIMES {
        check_eq!(nested.run(), ExitReason::CPUID, "exit {index}");
        check_eq!(counts(), (index + 1, index + 1), "after exit {index}");
        nested.advance();
    }
    nested.run();
    check!(nested.has_ended(), "the guest's guest ends");
    check_eq!(counts(), (TIMES + 1, TIMES + 1), "at the end");
    // An entry that fails once the hypapp was told of it is followed by an exit, too.
    nested.write(vmcs::GUEST_RFLAGS, 0);
    check_eq!(nested.try_entry(), GUEST_STATE, "an entry without the fixed flag");
    check_eq!(counts(), (TIMES + 2, TIMES + 2), "behind an entry that failed");
    leave_operation();
}

/// L2.
extern "C" fn execute() {
    for _ in 0..TIMES {
        cpuid(0, 0);
    }
}

/// Entries and exits that the hypapp was told of.
fn counts() -> (u64, u64) {
    let mut regs = Regs { rax: 3, rbx: SELECTOR, ..Regs::default() };
    check_eq!(run(Mode::Kernel64, snippet!("vmcall"), &mut regs), Ok(()), "the hypercall exists");
    (regs.rax, regs.rdx)
}
