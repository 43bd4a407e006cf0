//! The state in which the guest's boot sector starts, as a BIOS leaves it (BIOS Boot Specification,
//! "INT 19h").

use super::init_sipi::{CODE, DATA};
use crate::vcpu::{Activity, Registers, Vcpu};
use x86::cr::{Cr0, Cr4, Efer, Rflags};
use x86::segment::{AccessRights, DescriptorTable, Segment, SegmentRegister};

/// Linear address at which a BIOS loads and starts a boot sector.
pub const BOOT_SECTOR: u64 = 0x7c00;

/// Sets the state for 0:7C00H: DL names the drive, interrupts are on, the stack grows down from the boot
/// sector.
pub fn boot_sector<V: Vcpu + ?Sized>(vcpu: &mut V, boot_drive: u8) {
    use SegmentRegister::{Cs, Ds, Es, Fs, Gs, Ldtr, Ss, Tr};
    vcpu.set_cr0(Cr0::ET);
    vcpu.set_cr3(0);
    vcpu.set_cr4(Cr4::empty());
    vcpu.set_efer(Efer::empty());
    vcpu.reset_cr2_and_debug_registers();
    for register in [Es, Ss, Ds, Fs, Gs] {
        vcpu.set_segment(register, Segment::real_mode(0, DATA));
    }
    vcpu.set_segment(Cs, Segment::real_mode(0, CODE));
    vcpu.set_segment(Ldtr, system(0x82));
    vcpu.set_segment(Tr, system(0x8b));
    vcpu.set_gdtr(DescriptorTable { base: 0, limit: 0xffff });
    vcpu.set_idtr(DescriptorTable { base: 0, limit: 0x3ff });
    let mut registers = Registers::default();
    registers.set_rdx(boot_drive.into());
    *vcpu.registers_mut() = registers;
    vcpu.set_rsp(BOOT_SECTOR);
    vcpu.set_rip(BOOT_SECTOR);
    vcpu.set_rflags(Rflags::RESERVED1 | Rflags::IF);
    vcpu.set_activity(Activity::Active);
}

fn system(rights: u32) -> Segment {
    Segment { selector: 0, base: 0, limit: 0xffff, rights: AccessRights::from_bits_retain(rights) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vcpu::RegisterState;
    use crate::vcpu::fake::FakeVcpu;

    #[test]
    fn the_boot_sector_finds_what_a_bios_leaves() {
        let mut vcpu = FakeVcpu { index: 0, ..FakeVcpu::long_mode() };
        boot_sector(&mut vcpu, 0x81);
        let cs = vcpu.segment(SegmentRegister::Cs);
        assert_eq!((cs.base + vcpu.rip, cs.selector), (0x7c00, 0));
        assert_eq!((vcpu.registers.rdx(), vcpu.rsp), (0x81, 0x7c00));
        assert_eq!((vcpu.cr0.bits(), vcpu.cr4.bits(), vcpu.efer.bits()), (0x10, 0, 0));
        assert_eq!(vcpu.rflags.bits(), 0x202);
        assert_eq!(vcpu.idtr, DescriptorTable { base: 0, limit: 0x3ff });
        let is_real = |register: SegmentRegister| vcpu.segment(register).limit == 0xffff;
        assert!(SegmentRegister::ALL.into_iter().all(is_real));
    }
}
