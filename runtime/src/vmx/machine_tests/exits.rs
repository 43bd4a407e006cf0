//! Exits of a guest that is no hypervisor.

use super::*;
use crate::hypapp::ViolationAnswer;
use crate::vmx::fixture::{Heard, REGION, put_u64};
use hw::Msrs;
use x86::address::GIB;
use x86::msr::Msr;

const RIP: u64 = 0x7c00;
/// In real mode, where exceptions have no error code.
const GP0: u32 = 1 << 31 | 3 << 8 | 13;
const UNDEFINED: u32 = 1 << 31 | 3 << 8 | 6;
const MACHINE_CHECK: u32 = 1 << 31 | 3 << 8 | 18;

/// A guest in real mode that stands at an instruction of 2 bytes.
fn at_instruction() -> TestCpu {
    let cpu = TestCpu::running();
    cpu.set(vmcs::GUEST_RIP, RIP);
    cpu.set(vmcs::EXIT_INSTRUCTION_LENGTH, 2);
    cpu
}

/// Has the guest access `gpa`; `qualification` is 1 for a read, 2 for a write, 4 for a fetch.
fn violate(cpu: &mut TestCpu, gpa: u64, qualification: u64) -> (u64, u32) {
    cpu.set(vmcs::GUEST_RIP, RIP);
    cpu.set(vmcs::ENTRY_INTERRUPTION_INFORMATION, 0);
    cpu.set(vmcs::GUEST_PHYSICAL_ADDRESS, gpa);
    cpu.set(vmcs::EXIT_QUALIFICATION, qualification);
    cpu.exit(ExitReason::EPT_VIOLATION);
    entry(cpu)
}

#[test]
fn what_the_processor_refuses_in_vmx_is_done_or_undefined() {
    let mut cpu = at_instruction();
    cpu.exit(ExitReason::INVD);
    assert_eq!((entry(&cpu), cpu.take_acts()), ((RIP + 2, 0), vec![Act::WriteBack]));
    let mut getsec = || {
        cpu.set(vmcs::GUEST_RIP, RIP);
        cpu.exit(ExitReason::GETSEC);
        entry(&cpu)
    };
    assert_eq!(getsec(), (RIP, UNDEFINED));
}

#[test]
fn an_msr_is_the_hypapps_ours_or_not_there() {
    let mut cpu = at_instruction();
    for (msr, value) in [(0x1a2, 0x5678_9abc), (0x2ff, 0x806)] {
        cpu.set(vmcs::GUEST_RIP, RIP);
        cpu.registers.set_rcx(msr);
        cpu.exit(ExitReason::RDMSR);
        assert_eq!((entry(&cpu), cpu.registers.rax() & 0xffff_ffff), ((RIP + 2, 0), value), "{msr:#x}");
    }
    cpu.set(vmcs::GUEST_RIP, RIP);
    cpu.registers.set_rcx(0x123_4567);
    cpu.exit(ExitReason::RDMSR);
    assert_eq!(entry(&cpu), (RIP, GP0));
}

#[test]
fn mtrrs_that_change_types_flush_and_mtrrcap_is_read_only() {
    let mut cpu = at_instruction();
    let mut write = |msr, value| {
        cpu.set(vmcs::GUEST_RIP, RIP);
        cpu.set(vmcs::ENTRY_INTERRUPTION_INFORMATION, 0);
        cpu.registers.set_rcx(msr);
        cpu.registers.set_rax(value);
        cpu.registers.set_rdx(0);
        cpu.exit(ExitReason::WRMSR);
        (entry(&cpu), cpu.take_acts().contains(&Act::InvalidateGuestPhysical))
    };
    assert_eq!(write(0xfe, 0), ((RIP, GP0), false));
    assert_eq!(write(0x2ff, 0x800), ((RIP + 2, 0), true));
    assert_eq!(write(0x2ff, 0x806), ((RIP + 2, 0), true));
    // The hypapp's own.
    assert_eq!(write(0x1a2, 5), ((RIP + 2, 0), false));
}

#[test]
fn ports_of_the_hypapp_are_read_by_it() {
    let mut cpu = at_instruction();
    // IN AL, DX.
    cpu.set(vmcs::EXIT_QUALIFICATION, 8 | 0x5a << 16);
    cpu.exit(ExitReason::IO_INSTRUCTION);
    assert_eq!((entry(&cpu), cpu.registers.rax() & 0xff), ((RIP + 2, 0), 0xa5));
}

#[test]
fn a_page_never_touched_is_filled_and_the_region_is_not() {
    let mut cpu = at_instruction();
    // Below 4 GiB all is filled at boot.
    assert_eq!(violate(&mut cpu, 8 * GIB, 1), (RIP, 0));
    assert_eq!(violate(&mut cpu, REGION.base, 2), (RIP, GP0));
}

#[test]
fn a_closed_page_is_the_hypapps_to_answer_for() {
    let mut cpu = at_instruction();
    let page = GuestPhysAddr::new(cpu.memory());
    let range = GuestRange::page(page);
    services::set_protection(Scope::AllCpus, range, Rights::READ).unwrap();
    assert!(cpu.take_acts().contains(&Act::InvalidateGuestPhysical));
    assert_eq!(services::protection(Scope::AllCpus, page), Rights::READ);
    assert_eq!(violate(&mut cpu, page.get() + 8, 2), (RIP, GP0));
    script(|script| script.violation = ViolationAnswer::Resume);
    assert_eq!(violate(&mut cpu, page.get() + 8, 2), (RIP, 0));
    let told = Heard::Violation(page.get() + 8);
    assert_eq!(script(|script| script.heard.clone()), [told, told]);
    services::reset_protection(Scope::AllCpus, range).unwrap();
    assert_eq!(violate(&mut cpu, page.get() + 8, 2), (RIP, 0));
    assert_eq!(script(|script| script.heard.len()), 2);
}

#[test]
fn init_has_the_cpu_wait_and_a_startup_ipi_runs_it() {
    let mut cpu = at_instruction();
    cpu.exit(ExitReason::INIT);
    assert_eq!(cpu.get(vmcs::GUEST_ACTIVITY), 3);
    assert!(!cpu.data.is_running());
    cpu.set(vmcs::EXIT_QUALIFICATION, 0x9a);
    cpu.exit(ExitReason::STARTUP_IPI);
    assert!(cpu.data.is_running());
    let code = (cpu.get(vmcs::GUEST_CS_BASE), cpu.get(vmcs::GUEST_CS_SELECTOR));
    assert_eq!((code, entry(&cpu), cpu.get(vmcs::GUEST_ACTIVITY)), ((0x9a000, 0x9a00), (0, 0), 0));
    // An INIT that waited meanwhile has had its effect.
    cpu.exit(ExitReason::INIT);
    assert_eq!(cpu.get(vmcs::GUEST_ACTIVITY), 0);
    // Behind the first instruction it counts.
    cpu.set(vmcs::GUEST_RIP, 2);
    cpu.exit(ExitReason::MONITOR_TRAP_FLAG);
    cpu.exit(ExitReason::INIT);
    assert_eq!(cpu.get(vmcs::GUEST_ACTIVITY), 3);
}

#[test]
fn an_nmi_waits_for_its_window() {
    const NMI: u32 = 1 << 31 | 2 << 8 | 2;
    let mut cpu = at_instruction();
    own(|cpu| cpu.ports.answer(0x61, [0]));
    cpu.set(vmcs::GUEST_INTERRUPTIBILITY, 8);
    cpu.set(vmcs::EXIT_INTERRUPTION_INFORMATION, NMI);
    cpu.exit(ExitReason::EXCEPTION_OR_NMI);
    assert_eq!(entry(&cpu), (RIP, 0));
    cpu.set(vmcs::GUEST_INTERRUPTIBILITY, 0);
    cpu.exit(ExitReason::NMI_WINDOW);
    assert_eq!(entry(&cpu), (RIP, NMI));
}

#[test]
fn a_machine_check_on_our_way_is_the_guests_to_take() {
    let mut cpu = at_instruction();
    cpu.set(vmcs::GUEST_CR4, 0x2040);
    cpu.set(vmcs::CR4_READ_SHADOW, 0x40);
    cpu.data.give_machine_check();
    cpu.attend();
    assert_eq!(entry(&cpu), (RIP, MACHINE_CHECK));
}

#[test]
fn an_apic_that_the_guest_switches_off_stays_on() {
    let mut cpu = at_instruction();
    let mut write = |value: u64| {
        cpu.set(vmcs::GUEST_RIP, RIP);
        cpu.registers.set_rcx(0x1b);
        cpu.registers.set_rax(value);
        cpu.registers.set_rdx(0);
        cpu.exit(ExitReason::WRMSR);
        let hardware = own(|cpu| cpu.msrs.read(Msr::IA32_APIC_BASE)).unwrap();
        (entry(&cpu), cpu.data.is_apic_off(), hardware)
    };
    assert_eq!(write(0xfee0_0000), ((RIP + 2, 0), true, 0xfee0_0800));
    assert_eq!(write(0xfee0_0800), ((RIP + 2, 0), false, 0xfee0_0800));
}

#[test]
fn what_a_hypapp_watches_comes_to_it() {
    let mut cpu = at_instruction();
    let before = (cpu.get(vmcs::PIN_BASED_CONTROLS), cpu.get(vmcs::PRIMARY_CONTROLS));
    services::watch_external_interrupts(true);
    services::watch_interrupt_window(true);
    cpu.exit(ExitReason::EXTERNAL_INTERRUPT);
    cpu.exit(ExitReason::INTERRUPT_WINDOW);
    assert_eq!(entry(&cpu), (RIP, 0));
    assert_eq!(script(|script| script.heard.clone()), [Heard::ExternalInterrupt, Heard::InterruptWindow]);
    assert_ne!((cpu.get(vmcs::PIN_BASED_CONTROLS), cpu.get(vmcs::PRIMARY_CONTROLS)), before);
    services::watch_external_interrupts(false);
    services::watch_interrupt_window(false);
    assert_eq!((cpu.get(vmcs::PIN_BASED_CONTROLS), cpu.get(vmcs::PRIMARY_CONTROLS)), before);
}

#[test]
fn a_hypercall_finds_the_memory_that_it_names() {
    let mut cpu = at_instruction();
    let at = cpu.memory();
    put_u64(at, 0x1122_3344_5566_7788);
    script(|script| {
        script.hypercall = HypercallAnswer::Handled;
        script.at_hypercall = |vcpu| {
            let space = pages::address_space(vcpu);
            let address = GuestLinearAddr::new(vcpu.registers().rbx());
            let mut word = [0; 8];
            assert_eq!(space.read(address, &mut word, Privilege::Supervisor), Ok(()));
            vcpu.registers_mut().set_rcx(u64::from_le_bytes(word));
            assert_eq!(space.write(address, &[9], Privilege::Supervisor), Ok(()));
        };
    });
    cpu.registers.set_rbx(at);
    cpu.exit(ExitReason::VMCALL);
    assert_eq!((entry(&cpu), cpu.registers.rcx()), ((RIP + 2, 0), 0x1122_3344_5566_7788));
    assert_eq!(read::<1>(at), [9]);
}
