//! INIT and start-up IPIs (SDM, "Processor State After Reset"; "MP Initialization Protocol").

use super::{Action, ResetCause};
use crate::vcpu::{Activity, Registers, Vcpu};
use hw::{Cpuid, Msrs};
use x86::cpuid::{Leaf7Ebx, Leaf7Ecx, Leaf7Edx};
use x86::cr::{Cr0, Cr4, Efer, Rflags};
use x86::msr::GuestMsr;
use x86::segment::{AccessRights, DescriptorTable, Segment, SegmentRegister};

/// Those of control-flow enforcement.
const CET_MSRS: [GuestMsr; 7] = [
    GuestMsr::IA32_U_CET,
    GuestMsr::IA32_S_CET,
    GuestMsr::IA32_PL0_SSP,
    GuestMsr::IA32_PL1_SSP,
    GuestMsr::IA32_PL2_SSP,
    GuestMsr::IA32_PL3_SSP,
    GuestMsr::IA32_INTERRUPT_SSP_TABLE_ADDR,
];

/// Present, accessed, readable code.
pub(crate) const CODE: u32 = 0x9b;
/// Present, accessed, writable data.
pub(super) const DATA: u32 = 0x93;
/// Present LDT.
const LDT: u32 = 0x82;
/// Present, busy 32-bit TSS: the type that entry into a guest wants whatever its mode.
const BUSY_TSS: u32 = 0x8b;

/// An INIT signal arrived: another processor waits for its start-up IPI; the bootstrap processor's INIT
/// would begin the firmware anew, which ends the guest.
///
/// A start-up IPI that comes before the processor waits is lost, and systems send it within microseconds. So only
/// what lets it wait is done here; nobody sees its other state before [`startup`].
pub fn init<V: Vcpu + ?Sized>(vcpu: &mut V) -> Action {
    if vcpu.index() == 0 {
        return Action::Reset(ResetCause::Init);
    }
    vcpu.clear_interrupt_shadow();
    vcpu.finish_delivery();
    vcpu.set_activity(Activity::WaitForSipi);
    Action::Resume
}

/// A start-up IPI arrived while waiting for one: starts in INIT's state, in real mode at page `vector`.
pub fn startup<V: Vcpu + ?Sized>(vcpu: &mut V, cpuid: &impl Cpuid, msrs: &impl Msrs, vector: u8) -> Action {
    reset_state(vcpu, cpuid);
    reset_msrs(cpuid, msrs);
    vcpu.set_segment(SegmentRegister::Cs, Segment::real_mode(u16::from(vector) << 8, CODE));
    vcpu.set_rip(0);
    vcpu.set_activity(Activity::Active);
    Action::Resume
}

/// Clears the MSRs that INIT clears (SDM, "IA-32 and Intel 64 Processor States Following Power-up, Reset, or INIT"):
/// those of control-flow enforcement and of bound checking, where the processor has them.
pub fn reset_msrs(cpuid: &impl Cpuid, msrs: &impl Msrs) {
    if cpuid.cpuid(0, 0).eax < 7 {
        return;
    }
    let features = cpuid.cpuid(7, 0);
    let clear = |list: &[GuestMsr]| {
        for &msr in list {
            // What this processor lacks of them faults, and has nothing to clear.
            let _ = msrs.write(msr, 0);
        }
    };
    if features.ecx & Leaf7Ecx::CET_SS.bits() != 0 || features.edx & Leaf7Edx::CET_IBT.bits() != 0 {
        clear(&CET_MSRS);
    }
    if features.ebx & Leaf7Ebx::MPX.bits() != 0 {
        clear(&[GuestMsr::IA32_BNDCFGS]);
    }
}

/// Sets the state that INIT leaves (SDM, "IA-32 and Intel 64 Processor States Following Power-up, Reset, or
/// INIT").
///
/// FPU state and XCR0 stay, as INIT leaves them; of the MSRs IA32_EFER is reset here, others by [`reset_msrs`], and
/// the local APIC by [`super::local_apic`].
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
    use crate::vcpu::RegisterState;
    use crate::vcpu::fake::FakeVcpu;
    use hw::sim::{SimCpuid, SimMsrs};
    use x86::cpuid::CpuidResult;
    use x86::msr::Msr;

    struct Signature;
    impl Cpuid for Signature {
        fn cpuid(&self, leaf: u32, _subleaf: u32) -> CpuidResult {
            CpuidResult { eax: if leaf == 1 { 0x506e3 } else { 0 }, ..CpuidResult::default() }
        }
    }

    /// INIT, and a start-up IPI to the page of `vector`.
    fn start(vcpu: &mut FakeVcpu, vector: u8) {
        assert_eq!(init(vcpu), Action::Resume);
        assert_eq!(startup(vcpu, &Signature, &SimMsrs::new([]), vector), Action::Resume);
    }

    #[test]
    fn init_of_the_bootstrap_processor_ends_the_guest_untouched() {
        let before = FakeVcpu { index: 0, ..FakeVcpu::long_mode() };
        let mut vcpu = before.clone();
        assert_eq!(init(&mut vcpu), Action::Reset(ResetCause::Init));
        assert_eq!(vcpu, before);
    }

    #[test]
    fn init_leaves_the_manuals_state() {
        let mut vcpu = FakeVcpu { dr7: 0x455, pdptes: [1; 4], ..FakeVcpu::long_mode() };
        vcpu.registers = Registers([7; 16]);
        vcpu.rflags |= Rflags::IF | Rflags::DF;
        reset_state(&mut vcpu, &Signature);
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

    /// What may come right behind INIT is a start-up IPI, which is lost until the processor waits.
    #[test]
    fn init_does_no_more_than_let_the_processor_wait() {
        let before = FakeVcpu { rip: 0x1234, ..FakeVcpu::long_mode() };
        let mut vcpu = before.clone();
        assert_eq!(init(&mut vcpu), Action::Resume);
        assert_eq!((vcpu.activity, vcpu.shadow_clears), (Activity::WaitForSipi, 1));
        assert_eq!((vcpu.cr0, vcpu.rip, vcpu.debug_resets, vcpu.invalidations), (before.cr0, 0x1234, 0, 0));
        assert_eq!(startup(&mut vcpu, &Signature, &SimMsrs::new([]), 8), Action::Resume);
        assert_eq!((vcpu.cr0, vcpu.rip, vcpu.debug_resets, vcpu.invalidations), (Cr0::ET, 0, 1, 1));
    }

    #[test]
    fn init_clears_the_msrs_of_the_features_that_there_are() {
        let all = || {
            SimMsrs::new(
                CET_MSRS
                    .map(GuestMsr::msr)
                    .into_iter()
                    .chain([Msr::IA32_BNDCFGS, Msr(0xda0)])
                    .map(|msr| (msr, 5)),
            )
        };
        let left_by = |last, ebx, ecx, edx| {
            let leaf = |eax| CpuidResult { eax, ..CpuidResult::default() };
            let features = CpuidResult { ebx, ecx, edx, ..CpuidResult::default() };
            let msrs = all();
            reset_msrs(&SimCpuid::default().with(0, 0, leaf(last)).with(7, 0, features), &msrs);
            [CET_MSRS[0].msr(), CET_MSRS[6].msr(), Msr::IA32_BNDCFGS, Msr(0xda0)]
                .map(|msr| msrs.read(msr).unwrap())
        };
        let left = |ebx, ecx, edx| left_by(7, ebx, ecx, edx);
        assert_eq!(left(0, 1 << 7, 0), [0, 0, 5, 5]);
        assert_eq!(left(0, 0, 1 << 20), [0, 0, 5, 5]);
        assert_eq!(left(1 << 14, 0, 0), [5, 5, 0, 5]);
        assert_eq!(left(!(1 << 14), !(1 << 7), !(1 << 20)), [5; 4]);
        // A leaf beyond the last shows another's bits.
        assert_eq!([6, 0x20].map(|last| left_by(last, !0, !0, !0)), [[5; 4], [0, 0, 0, 5]]);
    }

    #[test]
    fn init_keeps_the_cache_bits() {
        for bits in [Cr0::CD, Cr0::CD | Cr0::NW, Cr0::empty()] {
            let mut vcpu = FakeVcpu { cr0: Cr0::PE | Cr0::PG | bits, ..FakeVcpu::long_mode() };
            start(&mut vcpu, 0);
            assert_eq!(vcpu.cr0, Cr0::ET | bits);
        }
    }

    #[test]
    fn startup_begins_at_the_page_of_the_vector() {
        let mut vcpu = FakeVcpu::real_mode();
        for vector in [0x9a, 0x08] {
            start(&mut vcpu, vector);
            let cs = vcpu.segment(SegmentRegister::Cs);
            assert_eq!(cs.selector, u16::from(vector) << 8);
            assert_eq!(cs.base + vcpu.rip, u64::from(vector) << 12);
            assert_eq!((cs.limit, vcpu.activity), (0xffff, Activity::Active));
        }
    }
}
