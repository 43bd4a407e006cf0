use super::*;
use crate::vcpu::{PagingState, RegisterState, Registers};
use crate::vmx::nested::vmcs12::controls::L1Controls;
use crate::vmx::vcpu::VmxVcpu;
use hw::sim::SimVmcs;
use x86::cr::{Cr0, Cr4};
use x86::vmx::controls::{PrimaryControls, SecondaryControls};

const CD: u64 = Cr0::CD.bits();
const TS: u64 = 1 << 3;
const DE: u64 = 1 << 3;

/// L2 whose registers and read shadows are as said, of which L1 owns `l1_owns`.
fn view(cr0: u64, shadow0: u64, l1_owns: u64) -> L2View<SimVmcs> {
    let mut vmcs02 = SimVmcs::default();
    vmcs02.write(vmcs::GUEST_CR0, cr0);
    vmcs02.write(vmcs::CR0_READ_SHADOW, shadow0);
    vmcs02.write(vmcs::GUEST_CR4, DE);
    vmcs02.write(vmcs::CR4_READ_SHADOW, 0);
    L2View::new(vmcs02, l1_owns)
}

#[test]
fn a_handler_sees_the_registers_and_l2s_cache_bits() {
    // TS is set, and L1 lets L2 believe it is not.
    let seen = view(0x8000_0031 | TS, CD, TS);
    assert_eq!(seen.read(vmcs::CR0_READ_SHADOW), 0x8000_0031 | TS | CD);
    assert_eq!(seen.read(vmcs::CR4_READ_SHADOW), DE);
    assert_eq!(seen.read(vmcs::GUEST_CR0), 0x8000_0031 | TS);
    // Cache bits that L1 owns are the register's.
    assert_eq!(view(0x31, CD, CD).read(vmcs::CR0_READ_SHADOW), 0x31);
    let mut registers = Registers::default();
    let vcpu = VmxVcpu::new(view(0x31, CD, 0), &mut registers, 0);
    assert_eq!((vcpu.cr0().bits(), vcpu.cr4()), (0x31 | CD, Cr4::DE));
}

#[test]
fn what_a_handler_writes_leaves_l1s_part_of_the_shadows() {
    let mut registers = Registers::default();
    let mut vcpu = VmxVcpu::new(view(0x31, 0, TS), &mut registers, 0);
    vcpu.set_cr0(Cr0::from_bits_retain(0x31 | TS | CD));
    let read = |field| vcpu.vmcs.vmcs.read(field);
    // The register has TS, L2 goes on to believe what L1 says of it, and has the cache bit that it wrote.
    assert_eq!(read(vmcs::GUEST_CR0) & (TS | CD), TS);
    assert_eq!(read(vmcs::CR0_READ_SHADOW) & (TS | CD), CD);
    vcpu.set_cr4(Cr4::from_bits_retain(DE | 1 << 5));
    assert_eq!(vcpu.vmcs.vmcs.read(vmcs::CR4_READ_SHADOW), 0);
    // In VMX operation VMXE is 1 in the register, whatever L1 says of it.
    assert_eq!(vcpu.cr4(), Cr4::DE | Cr4::PAE | Cr4::VMXE);
    vcpu.vmcs.write(vmcs::GUEST_RIP, 5);
    assert_eq!(vcpu.rip(), 5);
}

#[test]
fn l2_keeps_the_bits_of_cr0_that_its_processor_keeps() {
    let fixed = |secondary: SecondaryControls| {
        let mut vmcs12 = SimVmcs::default();
        vmcs12.write(vmcs::PRIMARY_CONTROLS, PrimaryControls::ACTIVATE_SECONDARY_CONTROLS.bits());
        vmcs12.write(vmcs::SECONDARY_CONTROLS, secondary.bits());
        let mut registers = Registers::default();
        // Whatever L1 owns of them.
        let mut vcpu = VmxVcpu::new(view(0x8000_0031, 0, Cr0::PE.bits()), &mut registers, 0);
        vcpu.fixed_cr0 = Some(L1Controls::of(&vmcs12).fixed_cr0());
        vcpu.fixed_bits()
    };
    let ept = SecondaryControls::ENABLE_EPT;
    assert_eq!(fixed(ept), (Cr0::NE | Cr0::PE | Cr0::PG, Cr4::VMXE));
    assert_eq!(fixed(ept | SecondaryControls::UNRESTRICTED_GUEST), (Cr0::NE, Cr4::VMXE));
}
