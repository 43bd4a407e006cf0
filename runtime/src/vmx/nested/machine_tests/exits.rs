//! Exits of L2: whose they are, and what comes of them.

use super::*;
use crate::hypapp::HypercallAnswer;
use crate::services;
use x86::msr::Msr;

/// VM-entry interruption information of an NMI.
const NMI: u32 = 1 << 31 | 2 << 8 | 2;
const GP0: u32 = 1 << 31 | 1 << 11 | 3 << 8 | 13;
/// Exit qualifications of one byte at the port in DX.
const OUT_BYTE_DX: u64 = 0;
const IN_BYTE_DX: u64 = 8;

#[test]
fn cpuid_of_l2_is_l1s_with_what_the_processor_told() {
    let mut l1 = L1::in_l2();
    l1.cpu.set(vmcs::GUEST_RSP, 0x4444);
    heard();
    l1.exit(ExitReason::CPUID);
    assert_eq!((l1.told(), heard()), (ExitReason::CPUID, vec![Heard::NestedExit]));
    assert_eq!(l1.read(vmcs::EXIT_INSTRUCTION_LENGTH), 2);
    assert_eq!((l1.read(vmcs::GUEST_RIP), l1.read(vmcs::GUEST_RSP)), (L2_RIP, 0x4444));
    assert_eq!((l1.cpu.get(vmcs::GUEST_CR3), l1.cpu.get(vmcs::GUEST_RFLAGS)), (l1.base + TABLES, 2));
    assert!(!services::is_nested());
}

#[test]
fn the_hypapps_leaf_of_cpuid_is_answered_without_l1() {
    let mut l1 = L1::in_l2();
    assert!(services::is_nested() && !services::has_nested_second_level());
    l1.cpu.registers.set_rax(0x4000_0100);
    l1.cpu.registers.set_rcx(7);
    l1.exit(ExitReason::CPUID);
    assert_eq!(l1.goes_on(), (L2_RIP + 2, 0));
    assert_eq!([l1.cpu.registers.rax(), l1.cpu.registers.rdx()], [7, 4]);
}

#[test]
fn a_hypercall_of_l2_is_the_hypapps_if_it_wants_it() {
    const COMMAND: u64 = 0x4c41_5001;
    for (answer, command, goes_on) in [
        (HypercallAnswer::Handled, COMMAND, Some(L2_RIP + 2)),
        (HypercallAnswer::Moved, COMMAND, Some(L2_RIP)),
        (HypercallAnswer::Chain, COMMAND, None),
        (HypercallAnswer::Handled, 1, None),
    ] {
        let mut l1 = L1::in_l2();
        script(|script| script.hypercall = answer);
        heard();
        l1.cpu.registers.set_rax(command);
        l1.exit(ExitReason::VMCALL);
        let was_asked = heard().contains(&Heard::Hypercall { is_nested: true });
        assert_eq!(was_asked, command == COMMAND, "{answer:?}");
        match goes_on {
            Some(rip) => assert_eq!(l1.goes_on(), (rip, 0), "{answer:?}"),
            None => assert_eq!(l1.told(), ExitReason::VMCALL, "{answer:?}"),
        }
    }
}

#[test]
fn an_nmi_is_l2s_unless_l1_asked_for_it() {
    for asks in [false, true] {
        let mut l1 = L1::in_l2_with(|l1| {
            if asks {
                l1.add(vmcs::PIN_BASED_CONTROLS, 1 << 3);
            }
        });
        l1.cpu.set(vmcs::EXIT_INTERRUPTION_INFORMATION, NMI);
        // No device asks for one (`nmi_source`).
        own(|cpu| cpu.ports.answer(0x61, [0]));
        l1.exit(ExitReason::EXCEPTION_OR_NMI);
        if asks {
            assert_eq!(l1.told(), ExitReason::EXCEPTION_OR_NMI);
            assert_eq!(l1.read(vmcs::EXIT_INTERRUPTION_INFORMATION), NMI);
            // The exit blocks NMIs in L1.
            assert_eq!(l1.cpu.get(vmcs::GUEST_INTERRUPTIBILITY) & 1 << 3, 1 << 3);
        } else {
            assert_eq!(l1.goes_on(), (L2_RIP, NMI));
        }
    }
}

#[test]
fn an_nmi_that_waits_in_l2_comes_at_its_window() {
    let mut l1 = L1::in_l2();
    own(|cpu| cpu.ports.answer(0x61, [0]));
    l1.cpu.set(vmcs::EXIT_INTERRUPTION_INFORMATION, NMI);
    l1.cpu.set(vmcs::GUEST_INTERRUPTIBILITY, 1 << 3);
    l1.exit(ExitReason::EXCEPTION_OR_NMI);
    assert_eq!(l1.goes_on(), (L2_RIP, 0));
    assert_eq!(l1.cpu.get(vmcs::PRIMARY_CONTROLS) & 1 << 22, 1 << 22, "the window is asked for");
    l1.cpu.set(vmcs::GUEST_INTERRUPTIBILITY, 0);
    l1.exit(ExitReason::NMI_WINDOW);
    assert_eq!(l1.goes_on(), (L2_RIP, NMI));
}

#[test]
fn exceptions_are_l1s_by_its_bitmap() {
    let breakpoint = 1 << 31 | 6 << 8 | 3;
    let mut l1 = L1::in_l2_with(|l1| l1.write(vmcs::EXCEPTION_BITMAP, 1 << 3));
    l1.cpu.set(vmcs::EXIT_INTERRUPTION_INFORMATION, breakpoint);
    l1.exit(ExitReason::EXCEPTION_OR_NMI);
    assert_eq!(l1.told(), ExitReason::EXCEPTION_OR_NMI);
    assert_eq!(l1.read(vmcs::EXIT_INTERRUPTION_INFORMATION), breakpoint);
}

#[test]
fn what_the_hypapp_watches_is_told_and_l1_has_its_exit() {
    let mut l1 = L1::in_l2_with(|l1| l1.add(vmcs::PIN_BASED_CONTROLS, 1));
    services::watch_external_interrupts(true);
    heard();
    l1.exit(ExitReason::EXTERNAL_INTERRUPT);
    assert_eq!(l1.told(), ExitReason::EXTERNAL_INTERRUPT);
    assert_eq!(heard(), [Heard::ExternalInterrupt, Heard::NestedExit]);
}

#[test]
fn what_the_hypapp_alone_watches_is_not_l1s() {
    let mut l1 = L1::in_l2();
    services::watch_interrupt_window(true);
    assert_eq!(l1.cpu.get(vmcs::PRIMARY_CONTROLS) & 1 << 2, 1 << 2);
    heard();
    l1.exit(ExitReason::INTERRUPT_WINDOW);
    assert_eq!((l1.goes_on(), heard()), ((L2_RIP, 0), vec![Heard::InterruptWindow]));
    services::watch_interrupt_window(false);
    assert_eq!(l1.cpu.get(vmcs::PRIMARY_CONTROLS) & 1 << 2, 0);
}

#[test]
fn a_port_of_the_hypapps_is_its_own_in_l2_too() {
    let mut l1 = L1::in_l2_with(|l1| {
        // L1 has bitmaps, which are clear.
        l1.add(vmcs::PRIMARY_CONTROLS, 1 << 25);
        l1.write(vmcs::IO_BITMAP_A, l1.base + FREE);
        l1.write(vmcs::IO_BITMAP_B, l1.base + FREE + 0x1000);
    });
    l1.cpu.set(vmcs::EXIT_QUALIFICATION, IN_BYTE_DX | 0x5a << 16);
    l1.exit(ExitReason::IO_INSTRUCTION);
    assert_eq!((l1.goes_on(), l1.cpu.registers.rax() & 0xff), ((L2_RIP + 2, 0), 0xa5));
    l1.cpu.registers.set_rax(0x77);
    l1.cpu.set(vmcs::EXIT_QUALIFICATION, OUT_BYTE_DX | 0x5a << 16);
    l1.exit(ExitReason::IO_INSTRUCTION);
    assert_eq!(l1.goes_on(), (L2_RIP + 2, 0));
    assert!(own(|cpu| cpu.ports.writes().iter().any(|write| (write.port, write.value) == (0x5a, 0x77))));
}

#[test]
fn a_port_of_l1s_bitmap_is_l1s() {
    let mut l1 = L1::in_l2_with(|l1| {
        put(l1.base + FREE + 0x5a / 8, &[1 << (0x5a % 8)]);
        l1.add(vmcs::PRIMARY_CONTROLS, 1 << 25);
        l1.write(vmcs::IO_BITMAP_A, l1.base + FREE);
        l1.write(vmcs::IO_BITMAP_B, l1.base + FREE + 0x1000);
    });
    // The bitmap that the processor goes by has L1's bit and the hypervisor's.
    let [byte] = read(l1.cpu.get(vmcs::IO_BITMAP_A) + 0x5a / 8);
    assert_eq!(byte >> (0x5a % 8) & 1, 1);
    l1.cpu.set(vmcs::EXIT_QUALIFICATION, IN_BYTE_DX | 0x5a << 16);
    l1.exit(ExitReason::IO_INSTRUCTION);
    assert_eq!(l1.told(), ExitReason::IO_INSTRUCTION);
    assert_eq!(l1.read(vmcs::EXIT_QUALIFICATION), IN_BYTE_DX | 0x5a << 16);
}

/// L2 whose MSRs L1 leaves alone, but for the hypervisor's own bits.
fn with_msr_bitmap() -> L1 {
    L1::in_l2_with(|l1| {
        l1.add(vmcs::PRIMARY_CONTROLS, 1 << 28);
        l1.write(vmcs::MSR_BITMAPS, l1.base + FREE);
    })
}

#[test]
fn an_msr_of_ours_is_read_for_l2_as_for_l1() {
    let mut l1 = with_msr_bitmap();
    for (msr, value) in [(Msr(0x1a2), 0x1234_5678_9abc), (Msr(0x480), u64::from(REVISION))] {
        l1.cpu.registers.set_rcx(msr.0.into());
        l1.exit(ExitReason::RDMSR);
        assert_eq!(l1.goes_on(), (L2_RIP + 2, 0));
        let read = l1.cpu.registers.rdx() << 32 | l1.cpu.registers.rax();
        assert_eq!(read & 0xffff_ffff, value & 0xffff_ffff, "{msr:?}");
    }
    // What no bitmap covers always exits (SDM, "MSR-Bitmap Address").
    l1.cpu.registers.set_rcx(0x123_4567);
    l1.exit(ExitReason::RDMSR);
    assert_eq!(l1.told(), ExitReason::RDMSR);
}

#[test]
fn an_msr_of_ours_is_written_for_l2_as_for_l1() {
    let mut l1 = with_msr_bitmap();
    // The hypapp's, and the counters' switch, of which L2 has a value of its own.
    for msr in [0x1a2, 0x38f] {
        l1.cpu.registers.set_rcx(msr);
        l1.cpu.registers.set_rax(1);
        l1.cpu.registers.set_rdx(0);
        l1.exit(ExitReason::WRMSR);
        assert_eq!(l1.goes_on(), (L2_RIP + 2, 0), "{msr:#x}");
    }
    // The capability of MTRRs is read-only.
    l1.cpu.registers.set_rcx(0xfe);
    l1.exit(ExitReason::WRMSR);
    assert_eq!(l1.goes_on(), (L2_RIP, GP0));
}

#[test]
fn every_msr_is_l1s_without_a_bitmap() {
    let mut l1 = L1::in_l2();
    l1.cpu.registers.set_rcx(0x1a2);
    l1.exit(ExitReason::RDMSR);
    assert_eq!(l1.told(), ExitReason::RDMSR);
}

#[test]
fn msr_areas_are_loaded_and_stored() {
    let area = |l1: &L1, offset, value| {
        put_u64(l1.base + FREE + offset, 0xc000_0102);
        put_u64(l1.base + FREE + offset + 8, value);
    };
    let mut l1 = L1::in_l2_with(|l1| {
        area(l1, 0, 0x1111);
        area(l1, 0x100, 0);
        area(l1, 0x200, 0x2222);
        for (count, address, offset) in [
            (vmcs::ENTRY_MSR_LOAD_COUNT, vmcs::ENTRY_MSR_LOAD_ADDRESS, 0),
            (vmcs::EXIT_MSR_STORE_COUNT, vmcs::EXIT_MSR_STORE_ADDRESS, 0x100),
            (vmcs::EXIT_MSR_LOAD_COUNT, vmcs::EXIT_MSR_LOAD_ADDRESS, 0x200),
        ] {
            l1.write(count, 1);
            l1.write(address, l1.base + FREE + offset);
        }
    });
    let kernel_gs = || own(|cpu| hw::Msrs::read(&cpu.msrs, Msr::IA32_KERNEL_GS_BASE));
    assert_eq!(kernel_gs(), Ok(0x1111));
    own(|cpu| cpu.msrs.set(Msr::IA32_KERNEL_GS_BASE, 0x3333));
    l1.exit(ExitReason::RDPMC);
    assert_eq!(l1.told(), ExitReason::RDPMC);
    assert_eq!(kernel_gs(), Ok(0x2222));
    assert_eq!(u64::from_le_bytes(read(l1.base + FREE + 0x108)), 0x3333);
}

#[test]
fn an_msr_that_cannot_be_loaded_fails_the_entry() {
    let mut l1 = L1::with_vmcs(Mode::Bits64);
    put_u64(l1.base + FREE, 0x123_4567);
    l1.write(vmcs::ENTRY_MSR_LOAD_COUNT, 1);
    l1.write(vmcs::ENTRY_MSR_LOAD_ADDRESS, l1.base + FREE);
    l1.launch();
    assert_eq!(l1.told(), ExitReason(1 << 31 | 34));
    assert_eq!(l1.read(vmcs::EXIT_QUALIFICATION), 1);
}

#[test]
fn a_machine_check_of_l2s_processor_is_injected_or_l1s() {
    for asks in [false, true] {
        let mut l1 = L1::in_l2_with(|l1| {
            l1.write(vmcs::GUEST_CR4, 0x2060);
            if asks {
                l1.write(vmcs::EXCEPTION_BITMAP, 1 << 18);
            }
        });
        l1.cpu.data.give_machine_check();
        l1.cpu.attend();
        let machine_check = 1 << 31 | 3 << 8 | 18;
        if asks {
            assert_eq!(l1.told(), ExitReason::EXCEPTION_OR_NMI);
            assert_eq!(l1.read(vmcs::EXIT_INTERRUPTION_INFORMATION), machine_check);
        } else {
            assert_eq!(l1.goes_on(), (L2_RIP, machine_check));
        }
    }
}

#[test]
fn a_step_of_l1s_ends_behind_an_instruction_that_we_carried_out() {
    let mut l1 = L1::in_l2_with(|l1| l1.add(vmcs::PRIMARY_CONTROLS, 1 << 27));
    l1.cpu.registers.set_rax(0x4000_0100);
    l1.exit(ExitReason::CPUID);
    assert_eq!(l1.told(), ExitReason::MONITOR_TRAP_FLAG);
    assert_eq!(l1.read(vmcs::GUEST_RIP), L2_RIP + 2);
}

#[test]
fn control_registers_are_l1s_by_its_masks() {
    // MOV CR0, RAX.
    let mut l1 = L1::in_l2_with(|l1| l1.write(vmcs::CR0_MASK, 1 << 3));
    l1.cpu.registers.set_rax(0x8005_003b);
    l1.cpu.set(vmcs::EXIT_QUALIFICATION, 0);
    l1.exit(ExitReason::CONTROL_REGISTER);
    assert_eq!(l1.told(), ExitReason::CONTROL_REGISTER);
}

#[test]
fn control_registers_that_l1_leaves_alone_are_written_for_l2() {
    let mut l1 = L1::in_l2();
    l1.cpu.registers.set_rax(0x8005_003b);
    l1.cpu.set(vmcs::EXIT_QUALIFICATION, 0);
    l1.exit(ExitReason::CONTROL_REGISTER);
    assert_eq!(l1.goes_on(), (L2_RIP + 2, 0));
    assert_eq!(l1.cpu.get(vmcs::GUEST_CR0) & 1 << 3, 1 << 3);
}
