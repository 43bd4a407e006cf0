//! A hypervisor in the guest: its own guest executes CPUID a hundred times, each of which it answers.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU32, Ordering};

use guest::cpu::cpuid;
use guest::vmx::Ept;
use guest::vmx::prelude::*;

guest!(main);

const TIMES: u32 = 100;
const LEAF: u32 = 0x4c31_0000;

static SEEN: AtomicU32 = AtomicU32::new(0);

fn main() {
    enter_operation();
    let ept = Ept::identity();
    // The guest with the hypervisor's own memory, and with memory by extended page tables.
    let mut nested = Guest::new(execute);
    answer("without EPT", &mut nested);
    nested.call(execute);
    answer("once more", &mut nested);
    nested.use_ept(&ept);
    nested.call(execute);
    answer("with EPT", &mut nested);
    leave_operation();
}

/// L2: counts the answers that are the hypervisor's, whatever the processor itself would say.
extern "C" fn execute() {
    SEEN.store(0, Ordering::SeqCst);
    for subleaf in 0..TIMES {
        let answer = cpuid(LEAF, subleaf);
        let expected = [LEAF + subleaf, !subleaf, 0x1234_5678, subleaf << 16];
        if [answer.eax, answer.ebx, answer.ecx, answer.edx] == expected {
            SEEN.fetch_add(1, Ordering::SeqCst);
        }
    }
}

fn answer(what: &str, nested: &mut Guest) {
    for subleaf in 0..u64::from(TIMES) {
        let reason = nested.run();
        if !check!(reason == ExitReason::CPUID, "{what}: exit {subleaf} is {}", reason.name()) {
            return;
        }
        check_eq!(nested.read(vmcs::EXIT_QUALIFICATION), 0, "{what}: exit qualification");
        check_eq!(nested.read(vmcs::EXIT_INSTRUCTION_LENGTH), 2, "{what}: length of CPUID");
        let registers = &mut nested.registers;
        check_eq!((registers.rax, registers.rcx), (u64::from(LEAF), subleaf), "{what}: inputs");
        registers.rax = u64::from(LEAF) + subleaf;
        registers.rbx = !subleaf & 0xffff_ffff;
        registers.rcx = 0x1234_5678;
        registers.rdx = subleaf << 16;
        nested.advance();
    }
    check_eq!(nested.run(), ExitReason::VMCALL, "{what}: the end");
    check!(nested.has_ended(), "{what}: the end");
    check_eq!(SEEN.load(Ordering::SeqCst), TIMES, "{what}: answers that came");
}
