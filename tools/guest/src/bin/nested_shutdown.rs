//! Wrong reflection: a guest's guest that no exception can be delivered to, for memory that a hypapp forbids, shuts down for
//! its hypervisor, and the machine goes on.
//! hypapp: verify
//! bare: no
#![no_std]
#![no_main]

use guest::vmx::prelude::*;
use guest::vmx::{Ept, allocate};
use guest::{Mode, Regs, run, snippet};

guest!(main);

const SET: u64 = 0xdead_beef;
const NOT_PRESENT: u64 = 1;
const ALL: u64 = 2 | 8 | 16;

fn main() {
    enter_operation();
    let page = allocate();
    let ept = Ept::identity();
    for has_ept in [true, false] {
        let mut nested = Guest::new(nothing);
        if has_ept {
            nested.use_ept(&ept);
        }
        nested.write(vmcs::GUEST_RIP, snippet!("ud2").address());
        nested.write(vmcs::GUEST_IDTR_BASE, page);
        nested.write(vmcs::GUEST_IDTR_LIMIT, 0xfff);
        set(page, NOT_PRESENT);
        let reason = nested.run();
        set(page, ALL);
        check_eq!(reason, ExitReason::TRIPLE_FAULT, "EPT {has_ept}: the exit");
        nested.clear();
    }
    leave_operation();
}

extern "C" fn nothing() {}

fn set(page: u64, types: u64) {
    let mut regs = Regs { rax: SET, rcx: page >> 12, rdx: types, ..Regs::default() };
    check_eq!(run(Mode::Kernel64, snippet!("vmcall"), &mut regs), Ok(()), "the hypercall exists");
    check_eq!(regs.rax, 0, "protections {types}");
}
