//! What the processor is, asked once at boot.
//!
//! CPUID is not asked again: it is slow, beneath a hypervisor an exit, and a guest can have it hide leaves
//! (IA32_MISC_ENABLE, "Limit CPUID Maxval").

use hw::{Cpuid, Msrs};
use spin::Once;
use x86::cpuid::{Leaf6Eax, Leaf7Ebx, Leaf7Ecx, Leaf7Edx};
use x86::msr::{MISC_ENABLE_LIMIT_CPUID, Msr};
use x86::paging::PAGE_SIZE;

/// Facts that hold on every CPU for the whole boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Features {
    /// Bits of a physical address that name memory: what encryption keys take of the width is left out.
    pub(crate) physical_address_bits: u8,
    /// Page tables can map pages of 1 GiB.
    pub(crate) has_1gib_pages: bool,
    /// The local APIC has an x2APIC mode.
    pub(crate) has_x2apic: bool,
    /// Counters that IA32_PERF_GLOBAL_CTRL switches.
    pub(crate) has_global_counters: bool,
    /// Last-branch records that IA32_LBR_CTL switches.
    pub(crate) has_architectural_lbrs: bool,
    /// IA32_TSC_ADJUST says what writes added to the time-stamp counter.
    pub(crate) has_tsc_adjust: bool,
    /// Bytes of the table that the hardware feedback interface writes; 0 without.
    pub(crate) feedback_bytes: u64,
}

static FEATURES: Once<Features> = Once::new();

/// Asks the executing processor, before any guest runs.
pub(crate) fn start(cpuid: &impl Cpuid, msrs: &impl Msrs) {
    FEATURES.call_once(|| Features::of(cpuid, msrs));
}

/// Returns what [`start`] found.
#[inline]
pub(crate) fn features() -> &'static Features {
    match FEATURES.get() {
        Some(features) => features,
        None => unreachable!("the runtime's entry asks the processor first"),
    }
}

impl Features {
    /// Returns the facts of the executing processor, whose CPUID is not limited.
    #[must_use]
    pub(crate) fn of(cpuid: &impl Cpuid, msrs: &impl Msrs) -> Self {
        let id = cpuid.identify();
        let width = id.get_processor_capacity_feature_info().map_or(0, |info| info.physical_address_bits());
        let identifiers = id.get_extended_processor_and_feature_identifiers();
        let counters = id.get_performance_monitoring_info();
        // What follows has no names there.
        let last = cpuid.cpuid(0, 0).eax;
        let leaf = |leaf| if leaf <= last { cpuid.cpuid(leaf, 0) } else { Default::default() };
        let (thermal, extended) = (leaf(6), leaf(7));
        let key_bits = if extended.ecx & Leaf7Ecx::TME.bits() != 0 { key_bits(msrs) } else { 0 };
        let feedback_pages = u64::from(thermal.edx >> 8 & 0xf) + 1;
        let has_feedback = thermal.eax & Leaf6Eax::HARDWARE_FEEDBACK.bits() != 0;
        Self {
            physical_address_bits: width.saturating_sub(key_bits),
            has_1gib_pages: identifiers.is_some_and(|identifiers| identifiers.has_1gib_pages()),
            has_x2apic: id.get_feature_info().is_some_and(|features| features.has_x2apic()),
            has_global_counters: counters.is_some_and(|counters| counters.version_id() >= 2),
            has_architectural_lbrs: extended.edx & Leaf7Edx::ARCHITECTURAL_LBRS.bits() != 0,
            has_tsc_adjust: extended.ebx & Leaf7Ebx::TSC_ADJUST.bits() != 0,
            feedback_bytes: if has_feedback { feedback_pages * PAGE_SIZE } else { 0 },
        }
    }
}

/// Upper bits of a physical address that choose a key (SDM, "Architectural MSRs", IA32_TME_ACTIVATE): memory that they
/// name is there without them too. Keys for trust domains are among these, and no page table of ours may name one.
fn key_bits(msrs: &impl Msrs) -> u8 {
    let [.., keys, _, _, _] = msrs.read(Msr::IA32_TME_ACTIVATE).unwrap_or(0).to_le_bytes();
    keys & 0xf
}

/// Makes CPUID of the executing processor show all its leaves; returns what [`limit_cpuid_again`] takes.
// UNSAFETY: writes IA32_MISC_ENABLE.
#[expect(unsafe_code, reason = "IA32_MISC_ENABLE")]
pub(crate) fn show_all_leaves(msrs: &impl Msrs) -> Option<u64> {
    let old = msrs.read(Msr::IA32_MISC_ENABLE).ok().filter(|value| value & MISC_ENABLE_LIMIT_CPUID != 0)?;
    // SAFETY: of what was there, only what CPUID shows changes.
    let shown = unsafe { msrs.write_trusted(Msr::IA32_MISC_ENABLE, old & !MISC_ENABLE_LIMIT_CPUID) };
    shown.ok().map(|()| old)
}

/// Gives the executing processor the limit back that its firmware set, if it did.
// UNSAFETY: writes IA32_MISC_ENABLE.
#[expect(unsafe_code, reason = "IA32_MISC_ENABLE")]
pub(crate) fn limit_cpuid_again(msrs: &impl Msrs, old: Option<u64>) {
    if let Some(old) = old {
        // What was read from the register fits it.
        // SAFETY: as it was.
        let _ = unsafe { msrs.write_trusted(Msr::IA32_MISC_ENABLE, old) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hw::sim::{SimCpuid, SimMsrs};
    use x86::cpuid::CpuidResult;

    fn processor(last: u32) -> SimCpuid {
        let leaf = |eax, ebx, ecx, edx| CpuidResult { eax, ebx, ecx, edx };
        SimCpuid::default()
            .with(0, 0, leaf(last, 0, 0, 0))
            .with(1, 0, leaf(0, 0, 1 << 21, 0))
            .with(6, 0, leaf(1 << 19, 0, 0, 3 << 8))
            .with(7, 0, leaf(0, 1 << 1, 1 << 13, 1 << 19))
            .with(0xa, 0, leaf(0x0730_0805, 0, 0, 0))
            .with(0x8000_0001, 0, leaf(0, 0, 0, 1 << 26))
            .with(0x8000_0008, 0, leaf(0x302e, 0, 0, 0))
    }

    #[test]
    fn each_fact_comes_from_its_leaf() {
        let expected = Features {
            physical_address_bits: 46,
            has_1gib_pages: true,
            has_x2apic: true,
            has_global_counters: true,
            has_architectural_lbrs: true,
            has_tsc_adjust: true,
            feedback_bytes: 4 * 4096,
        };
        assert_eq!(Features::of(&processor(0xa), &SimMsrs::new([])), expected);
    }

    #[test]
    fn leaves_behind_the_last_are_another_leafs() {
        let seen = Features::of(&processor(5), &SimMsrs::new([]));
        let has_any = seen.has_global_counters || seen.has_architectural_lbrs || seen.has_tsc_adjust;
        assert!(!has_any && seen.feedback_bytes == 0);
    }

    #[test]
    fn what_keys_take_of_an_address_is_no_address() {
        let width = |activate| {
            let msrs = SimMsrs::new([(Msr::IA32_TME_ACTIVATE, activate)]);
            Features::of(&processor(0xa), &msrs).physical_address_bits
        };
        // Bits 35:32 count the key bits, those for trust domains (39:36) among them.
        assert_eq!(width(3), 46);
        assert_eq!(width(0xffff_0000_8000_0000 | 6 << 32 | 3), 40);
        assert_eq!(width(0x26 << 32 | 3), 40);
        assert_eq!(width(15 << 32 | 3), 31);
    }

    #[test]
    fn a_limit_of_the_firmwares_is_lifted_and_given_back() {
        let msrs = SimMsrs::new([(Msr::IA32_MISC_ENABLE, MISC_ENABLE_LIMIT_CPUID | 1)]);
        let old = show_all_leaves(&msrs);
        assert_eq!(msrs.read(Msr::IA32_MISC_ENABLE), Ok(1));
        limit_cpuid_again(&msrs, old);
        assert_eq!(msrs.read(Msr::IA32_MISC_ENABLE), Ok(MISC_ENABLE_LIMIT_CPUID | 1));
        let without = SimMsrs::new([(Msr::IA32_MISC_ENABLE, 1)]);
        assert_eq!(show_all_leaves(&without), None);
        assert_eq!(without.writes(), []);
    }
}
