use super::*;
use crate::memory::guest::fake::FakeMemory;
use hw::sim::SimVmcs;

const BITMAPS: u64 = 0x1000;

/// The route of an exit, with `set` done to VMCS02 and VMCS12.
fn routed(
    reason: ExitReason,
    set: impl FnOnce(&mut SimVmcs, &mut Vmcs12, &mut Registers, &FakeMemory),
) -> Route {
    let memory = FakeMemory::new(0x8000);
    let (mut vmcs02, mut vmcs12) = (SimVmcs::default(), Vmcs12::new());
    let mut registers = Registers::default();
    set(&mut vmcs02, &mut vmcs12, &mut registers, &memory);
    route(&vmcs02, &vmcs12, &registers, reason, &memory)
}

fn set_primary(vmcs12: &mut Vmcs12, controls: PrimaryControls) {
    vmcs12.write(vmcs::PRIMARY_CONTROLS, controls.bits());
}

#[test]
fn what_only_l1_asks_for_is_l1s() {
    use ExitReason as R;
    for reason in [
        R::TRIPLE_FAULT,
        R::INIT,
        R::STARTUP_IPI,
        R::TASK_SWITCH,
        R::GETSEC,
        R::HLT,
        R::INVD,
        R::VMXON,
        R::VMREAD,
        R::VMCALL,
        R::XSETBV,
        R::RDTSC,
        R::APIC_ACCESS,
        R::PREEMPTION_TIMER,
        R::INVPCID,
        R::WBINVD,
    ] {
        assert_eq!(routed(reason, |_, _, _, _| ()), Route::L1, "{}", reason.name());
    }
}

#[test]
fn the_hypapp_is_asked_before_l1_for_cpuid_and_its_own_commands() {
    let call = |eax: u64| routed(ExitReason::VMCALL, |_, _, registers, _| registers.set_rax(eax));
    assert_eq!(routed(ExitReason::CPUID, |_, _, _, _| ()), Route::HypappThenL1);
    assert_eq!([call(0x4c41_5000), call(0xffff_ffff_4c41_50ff)], [Route::HypappThenL1; 2]);
    assert_eq!([call(0x4c41_4fff), call(0x4c41_5100)], [Route::L1; 2]);
}

#[test]
fn exceptions_go_by_bitmap_and_page_faults_by_error_code_too() {
    let event = |vector: u8, bitmap: u32, mask: u32, matched: u32| {
        routed(ExitReason::EXCEPTION_OR_NMI, |vmcs02, vmcs12, _, _| {
            let word = Interruption::new(vector, InterruptionType::HARDWARE_EXCEPTION, vector == 14);
            vmcs02.write(vmcs::EXIT_INTERRUPTION_INFORMATION, word.0);
            vmcs02.write(vmcs::EXIT_INTERRUPTION_ERROR_CODE, 6);
            vmcs12.write(vmcs::EXCEPTION_BITMAP, bitmap);
            vmcs12.write(vmcs::PAGE_FAULT_ERROR_CODE_MASK, mask);
            vmcs12.write(vmcs::PAGE_FAULT_ERROR_CODE_MATCH, matched);
        })
    };
    for vector in [0, 1, 3, 6, 13, 31] {
        assert_eq!(event(vector, 1 << vector, 0, 0), Route::L1);
        assert_eq!(event(vector, !(1 << vector), 0, 0), Route::L0);
    }
    assert_eq!((event(14, 1 << 14, 0, 0), event(14, 0, 0, 0)), (Route::L1, Route::L0));
    assert_eq!((event(14, 1 << 14, 2, 2), event(14, 1 << 14, 2, 0)), (Route::L1, Route::L0));
    assert_eq!((event(14, 0, 1, 1), event(14, 0, 2, 2)), (Route::L1, Route::L0));
    let nmi = routed(ExitReason::EXCEPTION_OR_NMI, |vmcs02, _, _, _| {
        vmcs02.write(vmcs::EXIT_INTERRUPTION_INFORMATION, 0x8000_0202);
    });
    assert_eq!(nmi, Route::Nmi);
}

#[test]
fn windows_traps_and_interrupts_are_ours_unless_l1_set_them() {
    use PrimaryControls as P;
    let by = |reason, controls| routed(reason, |_, vmcs12, _, _| set_primary(vmcs12, controls));
    for (reason, control, own) in [
        (ExitReason::NMI_WINDOW, P::NMI_WINDOW_EXITING, Route::NmiWindow),
        (ExitReason::INTERRUPT_WINDOW, P::INTERRUPT_WINDOW_EXITING, Route::L0),
    ] {
        assert_eq!((by(reason, control), by(reason, P::empty())), (Route::L1, own));
    }
    // Whose it is does not depend on the control alone.
    for control in [P::MONITOR_TRAP_FLAG, P::empty()] {
        assert_eq!(by(ExitReason::MONITOR_TRAP_FLAG, control), Route::Trap);
    }
    let interrupt = |pin: u32| {
        routed(ExitReason::EXTERNAL_INTERRUPT, |_, vmcs12, _, _| vmcs12.write(vmcs::PIN_BASED_CONTROLS, pin))
    };
    assert_eq!((interrupt(1), interrupt(0)), (Route::L1, Route::L0));
    for reason in [ExitReason::EPT_VIOLATION, ExitReason::EPT_MISCONFIGURATION] {
        assert_eq!(routed(reason, |_, _, _, _| ()), Route::SecondLevel);
    }
}

#[test]
fn control_registers_are_l1s_where_its_mask_would_change() {
    let access = |qualification: u64, value: u64, mask: u64, shadow: u64| {
        routed(ExitReason::CONTROL_REGISTER, |vmcs02, vmcs12, registers, _| {
            vmcs02.write(vmcs::EXIT_QUALIFICATION, qualification);
            vmcs02.write(vmcs::GUEST_RSP, value);
            registers.set_rax(value);
            for field in [vmcs::CR0_MASK, vmcs::CR4_MASK] {
                vmcs12.write(field, mask);
            }
            for field in [vmcs::CR0_READ_SHADOW, vmcs::CR4_READ_SHADOW] {
                vmcs12.write(field, shadow);
            }
        })
    };
    // MOV to CR0 from RAX, to CR4 from RSP.
    for qualification in [0, 0x404] {
        assert_eq!(access(qualification, 0x10, 0x10, 0), Route::L1);
        assert_eq!(access(qualification, 0x10, 0x10, 0x10), Route::L0);
        assert_eq!(access(qualification, 0x20, 0x10, 0), Route::L0);
    }
    // CLTS.
    assert_eq!(
        (access(0x20, 0, 8, 8), access(0x20, 0, 8, 0), access(0x20, 0, 0, 8)),
        (Route::L1, Route::L0, Route::L0)
    );
    // LMSW sets PE and clears it never.
    assert_eq!((access(0x1_0030, 0, 1, 0), access(0x0030, 0, 1, 1)), (Route::L1, Route::L0));
    assert_eq!((access(0x2_0030, 0, 2, 0), access(0x2_0030, 0, 4, 0)), (Route::L1, Route::L0));
    // MOV to CR3, MOV to CR8.
    assert_eq!((access(3, 0, 0, 0), access(8, 0, 0, 0)), (Route::L1, Route::L1));
}

#[test]
fn ports_go_by_l1s_bitmaps_all_of_an_access() {
    let port = |controls: PrimaryControls, port: u64, size: u64, bit: u64| {
        routed(ExitReason::IO_INSTRUCTION, |vmcs02, vmcs12, _, memory| {
            vmcs02.write(vmcs::EXIT_QUALIFICATION, port << 16 | size);
            set_primary(vmcs12, controls);
            vmcs12.write(vmcs::IO_BITMAP_A, BITMAPS);
            vmcs12.write(vmcs::IO_BITMAP_B, BITMAPS + 0x1000);
            memory.put(BITMAPS + bit / 8, &[1 << (bit % 8)]);
        })
    };
    let bitmaps = PrimaryControls::USE_IO_BITMAPS;
    assert_eq!((port(bitmaps, 0x70, 0, 0x70), port(bitmaps, 0x70, 0, 0x71)), (Route::L1, Route::L0));
    assert_eq!((port(bitmaps, 0x6d, 3, 0x70), port(bitmaps, 0x6c, 3, 0x70)), (Route::L1, Route::L0));
    assert_eq!(port(bitmaps, 0x7fff, 1, 0x8000), Route::L1);
    assert_eq!(port(bitmaps, 0xffff, 1, 0), Route::L1);
    let every = PrimaryControls::UNCONDITIONAL_IO_EXITING;
    assert_eq!(
        (port(every, 0x70, 0, 0), port(PrimaryControls::empty(), 0x70, 0, 0x70)),
        (Route::L1, Route::L0)
    );
    assert_eq!(port(bitmaps | every, 0x70, 0, 0x71), Route::L0);
}

#[test]
fn fields_of_a_linked_vmcs_go_by_l1s_bitmaps() {
    let access = |reason, controls: u32, encoding: u64, rights: u32, bit: u64| {
        routed(reason, |vmcs02, vmcs12, registers, memory| {
            vmcs02.write(vmcs::EXIT_INSTRUCTION_INFORMATION, 2 << 28);
            vmcs02.write(vmcs::GUEST_CS_ACCESS_RIGHTS, rights);
            registers.set_rdx(encoding);
            set_primary(vmcs12, PrimaryControls::ACTIVATE_SECONDARY_CONTROLS);
            vmcs12.write(vmcs::SECONDARY_CONTROLS, controls);
            vmcs12.write(vmcs::VMREAD_BITMAP_ADDRESS, BITMAPS);
            vmcs12.write(vmcs::VMWRITE_BITMAP_ADDRESS, BITMAPS + 0x1000);
            memory.put(BITMAPS + bit / 8, &[1 << (bit % 8)]);
        })
    };
    let (read, write, on) = (ExitReason::VMREAD, ExitReason::VMWRITE, 1 << 14);
    let (long, legacy) = (0xa09b, 0xc09b);
    assert_eq!((access(read, 0, 0x681e, long, 0), access(write, 0, 0x681e, long, 0)), (Route::L1, Route::L1));
    assert_eq!(access(read, on, 0x681e, long, 0x681e), Route::L1);
    assert_eq!(access(write, on, 0x681e, long, 0x681e), Route::Linked);
    assert_eq!(access(write, on, 0x681e, long, 0x8000 + 0x681e), Route::L1);
    assert_eq!(access(read, on, 0x681e, long, 0x681f), Route::Linked);
    for wide in [0x8000, 1 << 32, 1 << 63] {
        assert_eq!(access(read, on, wide, long, 1), Route::L1, "{wide:#x}");
    }
    // The upper half of a register is there in 64-bit mode only.
    assert_eq!(access(read, on, 1 << 32, legacy, 1), Route::Linked);
    let from_stack_pointer = routed(read, |vmcs02, vmcs12, _, memory| {
        vmcs02.write(vmcs::EXIT_INSTRUCTION_INFORMATION, 4 << 28);
        vmcs02.write(vmcs::GUEST_RSP, 0x4402);
        set_primary(vmcs12, PrimaryControls::ACTIVATE_SECONDARY_CONTROLS);
        vmcs12.write(vmcs::SECONDARY_CONTROLS, on);
        vmcs12.write(vmcs::VMREAD_BITMAP_ADDRESS, BITMAPS);
        memory.put(BITMAPS + 0x4402 / 8, &[1 << 2]);
    });
    assert_eq!(from_stack_pointer, Route::L1);
}

#[test]
fn msrs_go_by_l1s_bitmap_and_those_without_a_bit_are_l1s() {
    let msr = |reason, controls: PrimaryControls, number: u64, bit: u64| {
        routed(reason, |_, vmcs12, registers, memory| {
            registers.set_rcx(number);
            set_primary(vmcs12, controls);
            vmcs12.write(vmcs::MSR_BITMAPS, BITMAPS);
            memory.put(BITMAPS + bit / 8, &[1 << (bit % 8)]);
        })
    };
    let (bitmaps, read, write) = (PrimaryControls::USE_MSR_BITMAPS, ExitReason::RDMSR, ExitReason::WRMSR);
    assert_eq!((msr(read, bitmaps, 0x10, 0x10), msr(write, bitmaps, 0x10, 0x10)), (Route::L1, Route::L0));
    assert_eq!(msr(write, bitmaps, 0xc000_0080, 0x6080), Route::L1);
    assert_eq!(msr(read, bitmaps, 0xc000_0080, 0x2080), Route::L1);
    assert_eq!(msr(read, bitmaps, 0x4000_0000, 0), Route::L1);
    assert_eq!(msr(read, PrimaryControls::empty(), 0x10, 0), Route::L1);
    let hidden = routed(read, |_, vmcs12, _, _| {
        set_primary(vmcs12, bitmaps);
        vmcs12.write(vmcs::MSR_BITMAPS, 0x10_0000);
    });
    assert_eq!(hidden, Route::L1);
}
