//! Callers whose stack or return address makes no sense take the fault themselves; the PAL and the machine go on.
//! hypapp: trustvisor
//! bare: no
#![no_std]
#![no_main]

use guest::canary::{self, Vault, is_in};
use guest::pal::IF;
use guest::pal::prelude::*;
use guest::{Fault, Regs, run};

guest!(main);

const PAGE_FAULT: u8 = 14;

fn main() {
    let vault = Vault::open(0);
    for address in [1 << 47, 1 << 63, 0x7fff_8000_0000_0000, 0xffff_7fff_ffff_ffff] {
        for flags in [IF, 0] {
            let called = returning_to(&vault, address, flags);
            check_eq!(called, Err(Fault::GP), "a return to {address:#x} with flags {flags:#x}");
        }
    }
    nothing_has_run();
    for address in [0, 4, 8, 0x8000, 1 << 46, 0xffff_8000_0000_0000] {
        let called = returning_to(&vault, address, IF).map_err(|fault| fault.vector);
        check_eq!(called, Err(PAGE_FAULT), "a return to {address:#x}");
    }
    check_eq!(returning_to(&vault, vault.entry + 1, IF), Err(Fault::GP), "a return into the PAL");
    for stack in [0, 8, 0x8000, 1 << 46, 0xffff_8000_0000_0000] {
        let called = with_stack_at(&vault, stack).map_err(|fault| fault.vector);
        check_eq!(called, Err(PAGE_FAULT), "a stack at {stack:#x}");
    }
    for stack in [1 << 47, 1 << 63, u64::MAX, u64::MAX - 7] {
        let fault = with_stack_at(&vault, stack);
        check!(fault.is_err(), "a stack at {stack:#x}: {fault:x?}");
    }
    // Where the process reads zeros.
    for stack in [vault.entry, vault.entry + PAGE, vault.entry + 4 * PAGE - 8] {
        let called = with_stack_at(&vault, stack).map_err(|fault| fault.vector);
        check_eq!(called, Err(PAGE_FAULT), "a stack in the PAL");
    }
    check!(vault.knows(), "the PAL goes on");
    canary::is_nowhere("after calls that cannot return");
    check_eq!(vault.unregister(), 0, "unregistering");
}

/// No processor returns to an address that is not canonical, so the PAL does not begin.
fn nothing_has_run() {
    let counter = Pal::place(Mode::User64, 1, snippet!("mov rax, [rdx]", "inc qword ptr [rdx]", "ret"));
    check_eq!(counter.register(&[(ParameterType::Integer, 0); 3]), 0, "registering");
    let mut regs = Regs {
        rdx: counter.entry() + PAGE,
        r14: 1 << 63,
        r15: counter.entry(),
        rflags: IF,
        ..Regs::default()
    };
    for _ in 0..3 {
        let called = run(Mode::User64, snippet!("push r14", "jmp r15"), &mut regs);
        check_eq!(called, Err(Fault::GP), "a return to nowhere");
    }
    let counted = counter.call([0, 0, counter.entry() + PAGE, 0, 0, 0, 0, 0, 0, 0]).map(|regs| regs.rax);
    check_eq!(counted, Ok(0x9090_9090_9090_9090), "calls that were counted");
    check_eq!(counter.unregister(), 0, "unregistering");
}

fn returning_to(vault: &Vault, address: u64, flags: u64) -> Result<(), Fault> {
    let mut regs = Regs { r14: address, rflags: flags, ..vault.registers(1) };
    let called = run(Mode::User64, snippet!("push r14", "jmp r15"), &mut regs);
    check!(!is_in(&regs), "registers are free of the canary: {regs:x?}");
    called
}

fn with_stack_at(vault: &Vault, stack: u64) -> Result<(), Fault> {
    let mut regs = Regs { r14: stack, ..vault.registers(1) };
    let called = run(Mode::User64, snippet!("mov rsp, r14", "jmp r15"), &mut regs);
    check!(!is_in(&regs), "registers are free of the canary: {regs:x?}");
    called
}
