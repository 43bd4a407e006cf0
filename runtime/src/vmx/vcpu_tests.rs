use super::*;
use hw::sim::SimVmcs;

fn with<T>(set: impl FnOnce(&mut SimVmcs), act: impl FnOnce(&mut VmxVcpu<'_, SimVmcs>) -> T) -> T {
    let mut vmcs = SimVmcs::default();
    set(&mut vmcs);
    act(&mut VmxVcpu::new(vmcs, &mut Registers::default(), 0))
}

#[test]
fn owned_bits_are_the_guests_to_see_and_the_hardwares_to_keep() {
    with(
        |_| (),
        |vcpu| {
            vcpu.set_cr0(Cr0::PE | Cr0::CD);
            assert_eq!(vcpu.cr0(), Cr0::PE | Cr0::CD | Cr0::ET);
            assert_eq!(vcpu.vmcs.read(vmcs::GUEST_CR0), (Cr0::PE | Cr0::ET | Cr0::NE).bits());
            vcpu.set_cr4(Cr4::PAE);
            assert_eq!(vcpu.cr4(), Cr4::PAE);
            assert_eq!(vcpu.vmcs.read(vmcs::GUEST_CR4), (Cr4::PAE | Cr4::VMXE).bits());
        },
    );
}

#[test]
fn going_on_ends_the_shadow_and_keeps_the_single_step() {
    let after = |flags: Rflags, debugctl| {
        let set = |vmcs: &mut SimVmcs| {
            vmcs.write(vmcs::GUEST_RIP, 0x1000);
            vmcs.write(vmcs::EXIT_INSTRUCTION_LENGTH, 3);
            vmcs.write(vmcs::GUEST_RFLAGS, flags.bits());
            vmcs.write(vmcs::GUEST_DEBUGCTL, debugctl);
            let shadow = Interruptibility::BLOCKING_BY_STI | Interruptibility::BLOCKING_BY_NMI;
            vmcs.write(vmcs::GUEST_INTERRUPTIBILITY, shadow.bits());
        };
        with(set, |vcpu| {
            vcpu.advance();
            assert_eq!(vcpu.rip(), 0x1003);
            assert_eq!(vcpu.interruptibility(), Interruptibility::BLOCKING_BY_NMI);
            vcpu.vmcs.read(vmcs::GUEST_PENDING_DEBUG_EXCEPTIONS)
        })
    };
    assert_eq!(after(Rflags::RESERVED1, 0), 0);
    assert_eq!(after(Rflags::TF, 0), 1 << 14);
    assert_eq!(after(Rflags::TF, 1 << 1), 0);
}

#[test]
fn an_iteration_stays_at_its_instruction_and_says_that_it_began() {
    let set = |vmcs: &mut SimVmcs| {
        vmcs.write(vmcs::GUEST_RIP, 0x1000);
        vmcs.write(vmcs::EXIT_INSTRUCTION_LENGTH, 3);
        vmcs.write(vmcs::GUEST_RFLAGS, Rflags::TF.bits());
        vmcs.write(vmcs::GUEST_INTERRUPTIBILITY, Interruptibility::BLOCKING_BY_STI.bits());
    };
    with(set, |vcpu| {
        vcpu.iterate();
        assert_eq!((vcpu.rip(), vcpu.rflags()), (0x1000, Rflags::TF | Rflags::RF));
        assert_eq!(vcpu.interruptibility(), Interruptibility::empty());
        assert_eq!(vcpu.vmcs.read(vmcs::GUEST_PENDING_DEBUG_EXCEPTIONS), 1 << 14);
        vcpu.advance();
        assert_eq!((vcpu.rip(), vcpu.rflags()), (0x1003, Rflags::TF));
    });
}

#[test]
fn breakpoints_wait_for_the_instruction_s_end_unless_init_comes() {
    with(
        |_| (),
        |vcpu| {
            let pending = |vcpu: &VmxVcpu<'_, SimVmcs>| vcpu.vmcs.read(vmcs::GUEST_PENDING_DEBUG_EXCEPTIONS);
            vcpu.strike_breakpoints(0);
            assert_eq!(pending(vcpu), 0);
            vcpu.strike_breakpoints(0b100);
            vcpu.strike_breakpoints(0b001);
            assert_eq!(pending(vcpu), 0b101 | 1 << 12);
            vcpu.reset_cr2_and_debug_registers();
            assert_eq!(pending(vcpu), 0);
        },
    );
}

#[test]
fn the_instruction_pointer_wraps_at_4_gib_outside_64_bit_mode() {
    let next = |efer: Efer, rights: AccessRights| {
        let set = |vmcs: &mut SimVmcs| {
            vmcs.write(vmcs::GUEST_RIP, 0xffff_fffe);
            vmcs.write(vmcs::EXIT_INSTRUCTION_LENGTH, 2);
            vmcs.write(vmcs::GUEST_EFER, efer.bits());
            vmcs.write(vmcs::GUEST_CS_ACCESS_RIGHTS, rights.bits());
        };
        with(set, |vcpu| {
            vcpu.advance();
            vcpu.rip()
        })
    };
    assert_eq!(next(Efer::empty(), AccessRights::empty()), 0);
    assert_eq!(next(Efer::LMA, AccessRights::L), 1 << 32);
}

#[test]
fn long_mode_follows_into_the_entry_controls() {
    with(
        |_| (),
        |vcpu| {
            let controls = |vcpu: &VmxVcpu<'_, SimVmcs>| vcpu.vmcs.read(vmcs::ENTRY_CONTROLS);
            vcpu.set_efer(Efer::LME | Efer::LMA);
            assert_eq!(controls(vcpu), EntryControls::IA32E_MODE_GUEST.bits());
            vcpu.set_efer(Efer::LME);
            assert_eq!(controls(vcpu), 0);
        },
    );
}

#[test]
fn bits_of_cr4_that_have_no_name_here_are_kept() {
    with(
        |_| (),
        |vcpu| {
            let newer = Cr4::from_bits_retain(1 << 25 | 1 << 28);
            vcpu.set_cr4(newer | Cr4::PAE);
            assert_eq!(vcpu.vmcs.read(vmcs::GUEST_CR4), (newer | Cr4::PAE | Cr4::VMXE).bits());
            assert_eq!(vcpu.cr4(), newer | Cr4::PAE);
        },
    );
}
