//! Exits of the guest on a CPU that is a thread: from what the processor leaves to what it finds at the next entry.

use super::*;
use crate::smp::call::Callee;
use crate::vmx::fixture::{Heard, TestCpu, script};
use hw::host::{Act, own};
use hw::sim::SimCpuid;
use x86::cpuid::CpuidResult;

const RIP: u64 = 0x7c00;
/// What an exit or an entry says of an NMI.
const NMI: u32 = 1 << 31 | 2 << 8 | 2;
const UNDEFINED: u32 = 1 << 31 | 3 << 8 | 6;

/// A processor whose guest stands at an instruction of three bytes.
fn at_instruction() -> TestCpu {
    let cpu = TestCpu::running();
    cpu.set(vmcs::GUEST_RIP, RIP);
    cpu.set(vmcs::EXIT_INSTRUCTION_LENGTH, 3);
    cpu
}

/// Returns where the guest goes on, and the event that it takes there.
fn entry(cpu: &TestCpu) -> (u64, u32) {
    (cpu.get(vmcs::GUEST_RIP), cpu.get(vmcs::ENTRY_INTERRUPTION_INFORMATION))
}

#[test]
fn cpuid_answers_and_goes_on_behind_the_instruction() {
    let mut cpu = at_instruction();
    let leaf = CpuidResult { eax: 1, ebx: 2, ecx: 3, edx: 4 };
    own(|cpu| cpu.cpuid = SimCpuid::default().with(0x8000_0002, 0, leaf));
    cpu.registers.set_rax(0x8000_0002);
    cpu.exit(ExitReason::CPUID);
    let words = [cpu.registers.rax(), cpu.registers.rbx(), cpu.registers.rcx(), cpu.registers.rdx()];
    assert_eq!((words, entry(&cpu)), ([1, 2, 3, 4], (RIP + 3, 0)));
    assert!(cpu.data.exits().eq([(u32::from(ExitReason::CPUID.basic()), 1)]));
}

#[test]
fn a_hypercall_that_nobody_knows_is_undefined() {
    let mut cpu = at_instruction();
    cpu.exit(ExitReason::VMCALL);
    assert_eq!(entry(&cpu), (RIP, UNDEFINED));
    assert_eq!(script(|script| script.heard.clone()), [Heard::Hypercall { is_nested: false }]);
}

#[test]
fn an_nmi_that_nobody_sent_is_the_guests() {
    let mut cpu = at_instruction();
    cpu.set(vmcs::EXIT_INTERRUPTION_INFORMATION, NMI);
    cpu.leave(ExitReason::EXCEPTION_OR_NMI);
    assert_eq!(entry(&cpu), (RIP, 0));
    cpu.attend();
    assert_eq!(entry(&cpu), (RIP, NMI));
}

#[test]
fn an_nmi_of_ours_is_none_of_the_guests() {
    let mut cpu = at_instruction();
    assert!(!cpu.data.expect_nmi());
    // No device asks for one either (`nmi_source`).
    own(|cpu| cpu.ports.answer(0x61, [0]));
    cpu.set(vmcs::EXIT_INTERRUPTION_INFORMATION, NMI);
    cpu.exit(ExitReason::EXCEPTION_OR_NMI);
    assert_eq!(entry(&cpu), (RIP, 0));
}

#[test]
fn stale_translations_are_dropped_before_the_guest_goes_on() {
    let mut cpu = at_instruction();
    cpu.data.demand_attention();
    cpu.attend();
    assert_eq!(cpu.take_acts(), []);
    cpu.data.flush.store(true, Ordering::SeqCst);
    cpu.data.demand_attention();
    cpu.attend();
    assert_eq!(cpu.take_acts(), [Act::InvalidateGuestPhysical]);
    assert!(!cpu.data.flush.load(Ordering::SeqCst));
}
