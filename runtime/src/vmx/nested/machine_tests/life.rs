//! From VMXON to VMXOFF: entries, entries that fail, and what waits for L1.

use super::*;
use x86::vmx::vmcs::{GUEST_ACTIVITY, INSTRUCTION_ERROR};

#[test]
fn l2_is_entered_where_vmcs12_says_and_the_hypapp_hears() {
    let mut l1 = L1::with_vmcs(Mode::Bits64);
    heard();
    l1.launch();
    assert_eq!((l1.goes_on(), heard()), ((L2_RIP, 0), vec![Heard::NestedEntry]));
    assert_eq!(l1.cpu.get(vmcs::GUEST_CR3), l1.base + TABLES);
}

#[test]
fn an_l2_that_left_is_resumed_and_not_launched() {
    let mut l1 = L1::in_l2();
    l1.exit(ExitReason::RDPMC);
    assert_eq!(l1.told(), ExitReason::RDPMC);
    // VMLAUNCH with a VMCS that is not clear.
    assert_eq!(l1.launch(), (false, true));
    assert_eq!(l1.read(INSTRUCTION_ERROR), 4);
    l1.write(vmcs::GUEST_RIP, L2_RIP + 2);
    l1.resume();
    assert_eq!(l1.goes_on(), (L2_RIP + 2, 0));
}

#[test]
fn controls_that_l1_was_not_offered_fail_the_instruction() {
    let mut l1 = L1::with_vmcs(Mode::Bits64);
    l1.add(vmcs::PRIMARY_CONTROLS, 1);
    assert_eq!(l1.launch(), (false, true));
    assert!(!l1.is_l2());
    assert_eq!((l1.read(INSTRUCTION_ERROR), l1.cpu.get(vmcs::GUEST_RIP)), (7, L1_CODE + 3));
}

#[test]
fn guest_state_that_no_processor_has_ends_the_entry_in_an_exit() {
    let mut l1 = L1::with_vmcs(Mode::Bits64);
    l1.write(vmcs::GUEST_RFLAGS, 0);
    heard();
    l1.launch();
    assert_eq!(l1.told(), ExitReason(1 << 31 | 33));
    assert_eq!(heard(), []);
    // The launch state is as it was.
    l1.write(vmcs::GUEST_RFLAGS, 2);
    l1.launch();
    assert_eq!(l1.goes_on(), (L2_RIP, 0));
}

#[test]
fn guest_state_that_the_processor_refuses_is_l1s_failed_entry() {
    let mut l1 = L1::in_l2();
    l1.cpu.exit(ExitReason(1 << 31 | 33));
    assert_eq!(l1.told(), ExitReason(1 << 31 | 33));
}

#[test]
fn an_l2_that_ran_and_is_refused_shuts_down() {
    let mut l1 = L1::in_l2();
    // It ran: the hypapp's leaf of CPUID is answered without L1.
    l1.cpu.registers.set_rax(0x4000_0100);
    l1.exit(ExitReason::CPUID);
    assert_eq!(l1.goes_on(), (L2_RIP + 2, 0));
    l1.cpu.exit(ExitReason(1 << 31 | 33));
    assert_eq!(l1.told(), ExitReason::TRIPLE_FAULT);
}

#[test]
fn an_entry_that_the_processor_refuses_fails_l1s_instruction() {
    let mut l1 = L1::in_l2();
    l1.cpu.set(INSTRUCTION_ERROR, 7);
    assert!(!l1.cpu.refuse_entry());
    assert!(!l1.is_l2());
    assert_eq!((l1.read(INSTRUCTION_ERROR), l1.cpu.get(vmcs::GUEST_RIP)), (7, L1_CODE + 3));
    // It was not launched.
    l1.launch();
    assert!(l1.is_l2());
}

#[test]
fn a_clear_vmcs_of_ours_wants_vmlaunch() {
    let mut l1 = L1::in_l2();
    l1.cpu.set(INSTRUCTION_ERROR, 5);
    assert!(l1.cpu.refuse_entry());
    assert!(l1.is_l2());
}

#[test]
fn init_waits_in_root_operation_until_vmxoff() {
    let mut l1 = L1::with_vmcs(Mode::Bits64);
    l1.cpu.exit(ExitReason::INIT);
    assert_eq!(l1.cpu.get(GUEST_ACTIVITY), 0);
    l1.cpu.set(vmcs::EXIT_INSTRUCTION_LENGTH, 3);
    l1.cpu.exit(ExitReason::VMXOFF);
    assert_eq!(l1.cpu.get(GUEST_ACTIVITY), 3, "waits for a start-up IPI");
}

#[test]
fn an_init_signal_leaves_l2_for_l1() {
    let mut l1 = L1::in_l2();
    l1.exit(ExitReason::INIT);
    assert_eq!(l1.told(), ExitReason::INIT);
}

#[test]
fn vmclear_writes_what_l2_left_to_memory() {
    let mut l1 = L1::in_l2();
    l1.cpu.set(vmcs::GUEST_ES_BASE, 0xe5e5);
    l1.exit(ExitReason::RDPMC);
    assert_eq!(l1.told(), ExitReason::RDPMC);
    l1.succeed(ExitReason::VMCLEAR, VMCS12);
    // No VMCS is current.
    assert_eq!(l1.execute_raw(ExitReason::VMRESUME), (true, false));
    l1.succeed(ExitReason::VMPTRLD, VMCS12);
    assert_eq!(l1.read(vmcs::GUEST_ES_BASE), 0xe5e5);
}

#[test]
fn the_current_vmcs_pointer_is_stored() {
    let mut l1 = L1::with_vmcs(Mode::Bits64);
    assert_eq!(l1.execute_raw(ExitReason::VMPTRST), (false, false));
    assert_eq!(u64::from_le_bytes(read(l1.base + OPERAND)), l1.base + VMCS12);
}

#[test]
fn without_vmx_operation_the_instructions_are_undefined() {
    let mut l1 = L1::new();
    l1.execute_raw(ExitReason::VMLAUNCH);
    let undefined = 1 << 31 | 3 << 8 | 6;
    assert_eq!(l1.cpu.get(vmcs::ENTRY_INTERRUPTION_INFORMATION), undefined);
    // VMCALL is L1's failed one once it is on.
    l1.succeed(ExitReason::VMXON, VMXON_REGION);
    assert_eq!(l1.execute_raw(ExitReason::VMCALL), (true, false));
}

#[test]
fn l1_reads_what_vmx_it_is_offered() {
    let mut l1 = L1::new();
    l1.cpu.set(vmcs::EXIT_INSTRUCTION_LENGTH, 2);
    l1.cpu.registers.set_rcx(0x480);
    l1.cpu.exit(ExitReason::RDMSR);
    assert_eq!(l1.cpu.registers.rax(), REVISION.into());
    assert_eq!(l1.cpu.get(vmcs::GUEST_RIP), L1_CODE + 2);
}
