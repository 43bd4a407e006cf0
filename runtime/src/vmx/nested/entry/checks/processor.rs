//! What registers of L1's processor accept, VMX aside: the facts from CPUID that checks of a VM entry need.

use crate::vmx::probe;
use hw::{Cpuid, Msrs};
use x86::cet::CetControl;
use x86::cpuid::{Leaf7Ecx, Leaf7Edx};
use x86::cr::{Cr3, Cr4, Efer};
use x86::msr::{LBR_CTL_LBREN, Msr, PERF_CAPABILITIES_METRICS, PERF_GLOBAL_CTRL_METRICS};
use x86::pat::Pat;

/// What L1's processor accepts in registers that a VM entry or VM exit loads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Processor {
    /// Width of linear addresses in bits, with as many levels of paging as L1 may have. Registers take addresses of that
    /// width whatever the paging is.
    pub(crate) linear_address_bits: u8,
    /// Bits of CR3 that must be 0.
    pub(crate) cr3_reserved: u64,
    /// Bits that IA32_EFER has.
    pub(crate) efer: u64,
    /// Bits that IA32_DEBUGCTL has, as this processor's entries check them.
    pub(crate) debugctl: u64,
    /// Bits that IA32_PERF_GLOBAL_CTRL has.
    pub(crate) perf_global_ctrl: u64,
    /// Bits that IA32_S_CET has.
    pub(crate) s_cet: u64,
    /// Bits that IA32_LBR_CTL has.
    pub(crate) lbr_ctl: u64,
    /// Enclaves.
    pub(crate) has_sgx: bool,
    /// Restricted transactional memory.
    pub(crate) has_rtm: bool,
    /// Bus-lock detection by debug exceptions.
    pub(crate) has_bus_lock_detection: bool,
}

const CR3_LAM: Cr3 = Cr3::LAM_U57.union(Cr3::LAM_U48);
/// Width of linear addresses with four levels of paging.
const FOUR_LEVELS: u8 = 48;

impl Processor {
    /// Returns the facts of the executing processor.
    pub(crate) fn of(cpuid: &impl Cpuid, msrs: &impl Msrs) -> Self {
        let widths = cpuid.cpuid(0x8000_0008, 0).eax.to_le_bytes();
        let extended = cpuid.cpuid(7, 0);
        let has_lam = cpuid.cpuid(7, 1).eax >> 26 & 1 == 1;
        let has_bus_lock_detection = extended.ecx >> 24 & 1 == 1;
        let has_la57 = probe::cr4_for_guest(msrs).contains(Cr4::LA57);
        let beyond_width = u64::MAX.checked_shl(widths[0].into()).unwrap_or(0);
        Self {
            linear_address_bits: if has_la57 { widths[1] } else { widths[1].min(FOUR_LEVELS) },
            cr3_reserved: beyond_width & if has_lam { !CR3_LAM.bits() } else { !0 },
            efer: efer(cpuid.cpuid(0x8000_0001, 0).edx),
            debugctl: probe::debugctl(msrs),
            perf_global_ctrl: perf_global_ctrl(cpuid, msrs),
            s_cet: s_cet(extended.ecx, extended.edx),
            lbr_ctl: lbr_ctl(cpuid),
            has_sgx: extended.ebx >> 2 & 1 == 1,
            has_rtm: extended.ebx >> 11 & 1 == 1,
            has_bus_lock_detection,
        }
    }

    /// Returns whether `address` is canonical for a register (SDM, "Canonical Addressing").
    pub(crate) const fn is_canonical(&self, address: u64) -> bool {
        is_canonical_of(self.linear_address_bits, address)
    }

    /// Returns whether code can run at `address` with the paging that `cr4` chooses.
    pub(super) fn is_canonical_code(&self, address: u64, cr4: Cr4) -> bool {
        let bits = self.linear_address_bits;
        is_canonical_of(if cr4.contains(Cr4::LA57) { bits } else { bits.min(FOUR_LEVELS) }, address)
    }

    /// Returns whether IA32_PAT takes `value`.
    pub(crate) const fn accepts_pat(value: u64) -> bool {
        Pat(value).is_valid()
    }

    /// Returns whether IA32_EFER takes `value` where IA-32e mode is `is_ia32e`, active and enabled alike.
    pub(super) const fn accepts_efer(&self, value: u64, is_ia32e: bool, is_enable_checked: bool) -> bool {
        let efer = Efer::from_bits_retain(value);
        value & !self.efer == 0
            && efer.contains(Efer::LMA) == is_ia32e
            && (!is_enable_checked || efer.contains(Efer::LME) == is_ia32e)
    }

    /// Returns whether IA32_PERF_GLOBAL_CTRL takes `value`.
    pub(crate) const fn accepts_perf_global_ctrl(&self, value: u64) -> bool {
        value & !self.perf_global_ctrl == 0
    }

    /// Returns whether IA32_S_CET takes `value` (SDM, "Control-flow Enforcement Technology", "IA32_U_CET and
    /// IA32_S_CET").
    pub(super) const fn accepts_s_cet(&self, value: u64) -> bool {
        let control = CetControl::from_bits_retain(value);
        value & !self.s_cet == 0
            && !control.contains(CetControl::SUPPRESS.union(CetControl::TRACKER))
            && self.is_canonical(value & !0xfff)
    }
}

const fn is_canonical_of(bits: u8, address: u64) -> bool {
    let unused = 64 - bits;
    (address << unused).cast_signed() >> unused == address.cast_signed()
}

fn efer(features: u32) -> u64 {
    let (has_syscall, has_execute_disable) = (features >> 11 & 1 == 1, features >> 20 & 1 == 1);
    let has_64_bit_mode = features >> 29 & 1 == 1;
    let mut bits = Efer::empty();
    bits.set(Efer::SCE, has_syscall);
    bits.set(Efer::LME | Efer::LMA, has_64_bit_mode);
    bits.set(Efer::NXE, has_execute_disable);
    bits.bits()
}

/// Returns the bits of IA32_S_CET: for shadow stacks, and for tracking of indirect branches with the legacy bitmap's
/// address.
const fn s_cet(leaf7_ecx: u32, leaf7_edx: u32) -> u64 {
    const SHADOW_STACKS: u64 = 3;
    const TRACKING: u64 = !0xfff | 3 << 10 | 0xf << 2;
    let shadow_stacks = if leaf7_ecx & Leaf7Ecx::CET_SS.bits() != 0 { SHADOW_STACKS } else { 0 };
    let tracking = if leaf7_edx & Leaf7Edx::CET_IBT.bits() != 0 { TRACKING } else { 0 };
    shadow_stacks | tracking
}

/// Returns the bits of IA32_PERF_GLOBAL_CTRL (SDM, "Architectural Performance Monitoring").
fn perf_global_ctrl(cpuid: &impl Cpuid, msrs: &impl Msrs) -> u64 {
    let leaf = cpuid.cpuid(0xa, 0);
    let [version, general, ..] = leaf.eax.to_le_bytes();
    if version == 0 {
        return 0;
    }
    let below = |count: u32| (1_u64 << count.min(32)) - 1;
    let fixed = match version {
        1 => 0,
        2..=4 => below(leaf.edx & 0x1f),
        _ => below(leaf.edx & 0x1f) | u64::from(leaf.ecx),
    };
    let capabilities = msrs.read(Msr::IA32_PERF_CAPABILITIES).unwrap_or(0);
    let metrics = if capabilities & PERF_CAPABILITIES_METRICS != 0 { PERF_GLOBAL_CTRL_METRICS } else { 0 };
    below(general.into()) | fixed << 32 | metrics
}

/// Returns the bits of IA32_LBR_CTL (SDM, "CPUID Enumeration of Architectural LBRs"; "IA32_LBR_CTL").
fn lbr_ctl(cpuid: &impl Cpuid) -> u64 {
    const LEAF: u32 = 0x1c;
    if cpuid.cpuid(0, 0).eax < LEAF || cpuid.cpuid(7, 0).edx >> 19 & 1 == 0 {
        return 0;
    }
    let has = cpuid.cpuid(LEAF, 0).ebx;
    let parts = [(0, 3 << 1), (1, 0x7f << 16), (2, 1 << 3)];
    parts
        .into_iter()
        .filter(|(bit, _)| has >> bit & 1 == 1)
        .fold(LBR_CTL_LBREN, |bits, (_, part)| bits | part)
}

#[cfg(test)]
mod tests {
    use super::Processor;
    use hw::sim::{SimCpuid, SimMsrs};
    use x86::cpuid::CpuidResult;
    use x86::cr::Cr4;
    use x86::msr::Msr;

    fn leaf(eax: u32, ebx: u32, ecx: u32, edx: u32) -> CpuidResult {
        CpuidResult { eax, ebx, ecx, edx }
    }

    fn widths(physical: u32, linear: u32) -> SimCpuid {
        SimCpuid::default().with(0x8000_0008, 0, leaf(linear << 8 | physical, 0, 0, 0))
    }

    #[test]
    fn cpuid_says_what_registers_have() {
        let cpuid = widths(46, 57)
            .with(7, 0, leaf(1, 1 << 2 | 1 << 11, 1 << 24, 0))
            .with(7, 1, leaf(1 << 26, 0, 0, 0))
            .with(0x8000_0001, 0, leaf(0, 0, 0, 1 << 11 | 1 << 20 | 1 << 29));
        let msrs = SimMsrs::new([
            (Msr::IA32_VMX_CR4_FIXED1, Cr4::LA57.bits()),
            (Msr::IA32_SYSENTER_ESP, 0),
            (Msr::IA32_DEBUGCTL, 0),
        ]);
        let processor = Processor::of(&cpuid, &msrs);
        assert_eq!(processor.linear_address_bits, 57);
        assert_eq!(processor.cr3_reserved, !0 << 46 & !(3 << 61));
        assert_eq!((processor.efer, processor.debugctl), (0xd01, 0xffc7));
        assert!(processor.has_sgx && processor.has_rtm && processor.has_bus_lock_detection);
        assert!(processor.is_canonical(0x00ff_ffff_ffff_ffff) && !processor.is_canonical(1 << 56));
        assert!(processor.is_canonical_code(1 << 55, Cr4::LA57));
        assert!(!processor.is_canonical_code(1 << 55, Cr4::PAE));
    }

    #[test]
    fn addresses_are_narrow_where_five_levels_are_not_offered() {
        let processor = Processor::of(&widths(46, 57), &SimMsrs::new([]));
        assert_eq!(processor.linear_address_bits, 48);
        assert!(!processor.is_canonical(1 << 55) && !processor.is_canonical_code(1 << 55, Cr4::LA57));
    }

    #[test]
    fn control_flow_enforcement_has_the_bits_of_what_there_is() {
        let bits = |ecx, edx| {
            Processor::of(&widths(46, 48).with(7, 0, leaf(1, 0, ecx, edx)), &SimMsrs::new([])).s_cet
        };
        assert_eq!([bits(1 << 7, 0), bits(0, 1 << 20)], [3, 0xffff_ffff_ffff_fc3c]);
        assert_eq!([bits(1 << 7, 1 << 20), bits(!(1 << 7), !(1 << 20))], [0xffff_ffff_ffff_fc3f, 0]);
    }

    #[test]
    fn an_old_processor_has_less() {
        let processor = Processor::of(&widths(36, 48), &SimMsrs::new([]));
        assert_eq!((processor.efer, processor.debugctl, processor.perf_global_ctrl), (0, 0, 0));
        assert_eq!(processor.cr3_reserved, !0 << 36);
        assert!(!processor.has_sgx && !processor.has_rtm && !processor.has_bus_lock_detection);
        assert!(processor.is_canonical(0xffff_8000_0000_0000) && !processor.is_canonical(1 << 47));
    }

    #[test]
    fn branch_records_have_the_controls_of_what_there_is() {
        let controls = |last, has_records: u32, parts| {
            let cpuid = widths(39, 48)
                .with(0, 0, leaf(last, 0, 0, 0))
                .with(7, 0, leaf(0, 0, 0, has_records))
                .with(0x1c, 0, leaf(0, parts, 0, 0));
            Processor::of(&cpuid, &SimMsrs::new([])).lbr_ctl
        };
        let of_parts = [0, 1, 2, 4, 7].map(|parts| controls(0x1c, 1 << 19, parts));
        assert_eq!(of_parts, [1, 7, 0x7f_0001, 9, 0x7f_000f]);
        assert_eq!(controls(0x20, !0, 0), 1);
        assert_eq!([controls(0x1b, 1 << 19, 7), controls(0x1c, !(1 << 19), 7), controls(0x1c, 0, 7)], [0; 3]);
    }

    #[test]
    fn counters_that_two_fields_name_have_one_enable() {
        let counters = |eax, ecx, edx, capabilities| {
            let cpuid = widths(39, 48).with(0xa, 0, leaf(eax, 0, ecx, edx));
            let msrs = SimMsrs::new([(Msr::IA32_PERF_CAPABILITIES, capabilities)]);
            Processor::of(&cpuid, &msrs).perf_global_ctrl
        };
        assert_eq!(counters(0x405, 0b101, 2, 0), 0x7_0000_000f);
        // As many counters that have their bit where the metrics have theirs.
        assert_eq!(counters(0x402, 0, 17, 1 << 15), 0x1_ffff_0000_000f);
    }

    #[test]
    fn counters_have_their_enables() {
        let counters = |eax, ecx, edx, capabilities| {
            let cpuid = widths(39, 48).with(0xa, 0, leaf(eax, 0, ecx, edx));
            let msrs = SimMsrs::new([(Msr::IA32_PERF_CAPABILITIES, capabilities)]);
            Processor::of(&cpuid, &msrs).perf_global_ctrl
        };
        assert_eq!(counters(0x401, 0, 3, 0), 0xf);
        assert_eq!(counters(0x802, 0, 3, 0), 0x7_0000_00ff);
        // A bit for each fixed-function counter is there from version 5 on; versions up to 1 have none of them.
        assert_eq!(counters(0x804, 0x13, 3, 0), 0x7_0000_00ff);
        assert_eq!(counters(0x801, 0x13, 3, 0), 0xff);
        assert_eq!(counters(0x805, 0x13, 0, 1 << 15), 0x1_0013_0000_00ff);
        assert_eq!(counters(0xff05, 0, 0, 0), 0xffff_ffff);
    }
}
