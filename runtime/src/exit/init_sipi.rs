//! INIT and start-up IPIs (SDM, "Processor State After Reset"; "MP Initialization Protocol").

use super::{Action, ResetCause};
use crate::vcpu::{Activity, Registers, Vcpu};
use hw::Cpuid;
use x86::cr::{Cr0, Cr4, Efer, Rflags};
use x86::segment::{AccessRights, DescriptorTable, Segment, SegmentRegister};

/// Present, accessed, readable code.
pub(super) const CODE: u32 = 0x9b;
/// Present, accessed, writable data.
pub(super) const DATA: u32 = 0x93;
/// Present LDT.
const LDT: u32 = 0x82;
/// Present, busy 32-bit TSS: the type that entry into a guest wants whatever its mode.
const BUSY_TSS: u32 = 0x8b;

/// An INIT signal arrived: another processor waits for its start-up IPI; the bootstrap processor's INIT
/// would begin the firmware anew, which ends the guest.
pub fn init<V: Vcpu + ?Sized>(vcpu: &mut V, cpuid: &impl Cpuid) -> Action {
    if vcpu.index() == 0 {
        return Action::Reset(ResetCause::Init);
    }
    reset_state(vcpu, cpuid);
    vcpu.set_activity(Activity::WaitForSipi);
    Action::Resume
}

/// A start-up IPI arrived while waiting for one: starts in real mode at page `vector`.
pub fn startup<V: Vcpu + ?Sized>(vcpu: &mut V, vector: u8) -> Action {
    vcpu.set_segment(SegmentRegister::Cs, Segment::real_mode(u16::from(vector) << 8, CODE));
    vcpu.set_rip(0);
    vcpu.set_activity(Activity::Active);
    Action::Resume
}

/// Sets the state that INIT leaves (SDM, "IA-32 and Intel 64 Processor States Following Power-up, Reset, or
/// INIT").
///
/// FPU state, XCR0 and MSRs but IA32_EFER stay, as INIT leaves them; the local APIC is reset by
/// [`super::local_apic`].
pub fn reset_state<V: Vcpu + ?Sized>(vcpu: &mut V, cpuid: &impl Cpuid) {
    // INIT keeps the two cache bits; CR0 is 6000_0010H at power-up, which is the first INIT's state here.
    let cache_bits = vcpu.cr0() & (Cr0::CD | Cr0::NW);
    vcpu.set_cr0(cache_bits | Cr0::ET);
    vcpu.set_cr3(0);
    vcpu.set_cr4(Cr4::empty());
    vcpu.set_efer(Efer::empty());
    vcpu.reset_cr2_and_debug_registers();
    vcpu.invalidate_translations();
    let mut registers = Registers::default();
    registers.set_rdx(cpuid.cpuid(1, 0).eax.into());
    *vcpu.registers_mut() = registers;
    vcpu.set_rsp(0);
    vcpu.set_rip(0xfff0);
    vcpu.set_rflags(Rflags::RESERVED1);
    reset_segments(vcpu);
    vcpu.clear_interrupt_shadow();
    vcpu.set_nmi_blocking(false);
    vcpu.finish_delivery();
}

fn reset_segments<V: Vcpu + ?Sized>(vcpu: &mut V) {
    use SegmentRegister::{Cs, Ds, Es, Fs, Gs, Ldtr, Ss, Tr};
    for register in [Es, Ss, Ds, Fs, Gs] {
        vcpu.set_segment(register, Segment::real_mode(0, DATA));
    }
    let rights = AccessRights::from_bits_retain(CODE);
    vcpu.set_segment(Cs, Segment { selector: 0xf000, base: 0xffff_0000, limit: 0xffff, rights });
    vcpu.set_segment(Ldtr, Segment::real_mode(0, LDT));
    vcpu.set_segment(Tr, Segment::real_mode(0, BUSY_TSS));
    let table = DescriptorTable { base: 0, limit: 0xffff };
    vcpu.set_gdtr(table);
    vcpu.set_idtr(table);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vcpu::fake::FakeVcpu;
    use x86::cpuid::CpuidResult;

    struct Signature;
    impl Cpuid for Signature {
        fn cpuid(&self, leaf: u32, _subleaf: u32) -> CpuidResult {
            CpuidResult { eax: if leaf == 1 { 0x506e3 } else { 0 }, ..CpuidResult::default() }
        }
    }

    #[test]
    fn init_of_the_bootstrap_processor_ends_the_guest_untouched() {
        let before = FakeVcpu { index: 0, ..FakeVcpu::long_mode() };
        let mut vcpu = before.clone();
        assert_eq!(init(&mut vcpu, &Signature), Action::Reset(ResetCause::Init));
        assert_eq!(vcpu, before);
    }

    #[test]
    fn init_leaves_the_manuals_state() {
        let mut vcpu = FakeVcpu { dr7: 0x455, pdptes: [1; 4], ..FakeVcpu::long_mode() };
        vcpu.registers = Registers([7; 16]);
        vcpu.rflags |= Rflags::IF | Rflags::DF;
        assert_eq!(init(&mut vcpu, &Signature), Action::Resume);
        assert_eq!(vcpu.activity, Activity::WaitForSipi);
        assert_eq!((vcpu.cr0, vcpu.cr3, vcpu.cr4, vcpu.efer), (Cr0::ET, 0, Cr4::empty(), Efer::empty()));
        assert_eq!((vcpu.rip, vcpu.rsp, vcpu.rflags.bits()), (0xfff0, 0, 2));
        let mut registers = Registers::default();
        registers.set_rdx(0x506e3);
        assert_eq!(vcpu.registers, registers);
        let cs = vcpu.segment(SegmentRegister::Cs);
        assert_eq!((cs.selector, cs.base, cs.limit, cs.rights.bits()), (0xf000, 0xffff_0000, 0xffff, 0x9b));
        let ss = vcpu.segment(SegmentRegister::Ss);
        assert_eq!((ss.selector, ss.base, ss.limit, ss.rights.bits()), (0, 0, 0xffff, 0x93));
        assert_eq!(vcpu.segment(SegmentRegister::Tr).rights.kind(), 0xb);
        assert_eq!((vcpu.gdtr, vcpu.idtr.limit), (DescriptorTable { base: 0, limit: 0xffff }, 0xffff));
        assert_eq!((vcpu.debug_resets, vcpu.dr7, vcpu.invalidations), (1, 0x400, 1));
        assert_eq!((vcpu.is_nmi_blocked, vcpu.shadow_clears), (Some(false), 1));
    }

    #[test]
    fn init_keeps_the_cache_bits() {
        for bits in [Cr0::CD, Cr0::CD | Cr0::NW, Cr0::empty()] {
            let mut vcpu = FakeVcpu { cr0: Cr0::PE | Cr0::PG | bits, ..FakeVcpu::long_mode() };
            init(&mut vcpu, &Signature);
            assert_eq!(vcpu.cr0, Cr0::ET | bits);
        }
    }

    #[test]
    fn startup_begins_at_the_page_of_the_vector() {
        let mut vcpu = FakeVcpu::real_mode();
        for vector in [0x9a, 0x08] {
            init(&mut vcpu, &Signature);
            assert_eq!(startup(&mut vcpu, vector), Action::Resume);
            let cs = vcpu.segment(SegmentRegister::Cs);
            assert_eq!(cs.selector, u16::from(vector) << 8);
            assert_eq!(cs.base + vcpu.rip, u64::from(vector) << 12);
            assert_eq!((cs.limit, vcpu.activity), (0xffff, Activity::Active));
        }
    }
}
