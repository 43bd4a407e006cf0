//! What keeps speculation from secrets: barriers on a CPU's way from the guest to private memory and back.
//!
//! Outside that way the hypervisor has nothing that the guest does not have itself: no memory of a PAL and no key is
//! mapped ([`crate::memory::private`]), so a wrong branch or a stale load of ours finds nothing, and an ordinary exit
//! takes no barrier. On that way, in this order: the guest's choices in IA32_SPEC_CTRL give way to the strictest ones,
//! what the guest taught the predictors is dropped, and only then is private memory mapped. Before the guest goes on,
//! what private code taught the predictors is dropped, caches and buffers that its data went through are overwritten,
//! and the guest has its choices back.
//!
//! Means that the processor does not enumerate are left out: there what they are against is not mitigated by anybody.
//! `docs/threat-model.md` has the table.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use hw::{Barriers, Cpuid, Msrs};
use spin::Once;
use x86::msr::Msr;
use x86::speculation::{
    ArchCapabilities, IBPB, L1D_FLUSH, McuOptCtrl, SpecCtrl, SpecCtrlFeatures, SpeculationFeatures,
};

const CPUID_FEATURES: u32 = 7;
/// Subleaf with further bits of IA32_SPEC_CTRL.
const SPEC_CTRL_SUBLEAF: u32 = 2;

/// The means of one CPU; decided at its start, before a guest can change what CPUID says. CPUs of a hybrid processor
/// may differ, so each is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Means {
    /// What IA32_SPEC_CTRL is on the way; empty where there is no such register.
    spec_ctrl: SpecCtrl,
    has_predictor_barrier: bool,
    /// A fault can leave data of the first-level cache to a guest, and the cache can be flushed.
    flushes_cache: bool,
    overwrites_buffers: bool,
    /// Random numbers can be sampled by other cores where the guest wishes so.
    has_srbds_switch: bool,
}

impl Means {
    /// Those that the processor enumerates.
    pub fn of(cpuid: &impl Cpuid, msrs: &impl Msrs) -> Self {
        if cpuid.cpuid(0, 0).eax < CPUID_FEATURES {
            return Self::default();
        }
        let leaf = cpuid.cpuid(CPUID_FEATURES, 0);
        let features = SpeculationFeatures::from_bits_retain(leaf.edx);
        let capabilities = if features.contains(SpeculationFeatures::ARCH_CAPABILITIES) {
            ArchCapabilities::from_bits_retain(msrs.read(Msr::IA32_ARCH_CAPABILITIES).unwrap_or(0))
        } else {
            ArchCapabilities::empty()
        };
        let further = if leaf.eax >= SPEC_CTRL_SUBLEAF {
            SpecCtrlFeatures::from_bits_retain(cpuid.cpuid(CPUID_FEATURES, SPEC_CTRL_SUBLEAF).edx)
        } else {
            SpecCtrlFeatures::empty()
        };
        Self {
            spec_ctrl: strictest(features, further),
            has_predictor_barrier: features.contains(SpeculationFeatures::IBRS_AND_IBPB),
            flushes_cache: features.contains(SpeculationFeatures::L1D_FLUSH)
                && !capabilities.intersects(ArchCapabilities::RDCL_NO | ArchCapabilities::SKIP_L1DFL_VMENTRY),
            overwrites_buffers: features.contains(SpeculationFeatures::MD_CLEAR)
                || capabilities.intersects(ArchCapabilities::FB_CLEAR | ArchCapabilities::RFDS_CLEAR),
            has_srbds_switch: features.contains(SpeculationFeatures::SRBDS_CTRL),
        }
    }
}

/// Every restriction that IA32_SPEC_CTRL of this processor has.
fn strictest(features: SpeculationFeatures, further: SpecCtrlFeatures) -> SpecCtrl {
    let mut value = SpecCtrl::empty();
    value.set(SpecCtrl::IBRS, features.contains(SpeculationFeatures::IBRS_AND_IBPB));
    value.set(SpecCtrl::STIBP, features.contains(SpeculationFeatures::STIBP));
    value.set(SpecCtrl::SSBD, features.contains(SpeculationFeatures::SSBD));
    let rrsba = SpecCtrl::RRSBA_DIS_U | SpecCtrl::RRSBA_DIS_S;
    value.set(rrsba, further.contains(SpecCtrlFeatures::RRSBA_CTRL));
    value.set(SpecCtrl::BHI_DIS_S, further.contains(SpecCtrlFeatures::BHI_CTRL));
    value
}

/// How far one CPU is on the way. It alone uses this.
#[derive(Debug, Default)]
pub struct Crossing {
    /// What this CPU has.
    means: Once<Means>,
    /// Private memory was mapped since the guest last ran.
    is_touched: AtomicBool,
    /// The guest's choices are put aside: this CPU is on the way, or its guest is in a compartment.
    has_guests: AtomicBool,
    /// The CPU looks around for the last time before it enters a guest, and [`Self::end`] follows.
    is_leaving: AtomicBool,
    spec_ctrl: AtomicU64,
    mcu_opt_ctrl: AtomicU64,
}

impl Crossing {
    /// Nothing was touched yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            means: Once::new(),
            is_touched: AtomicBool::new(false),
            has_guests: AtomicBool::new(false),
            is_leaving: AtomicBool::new(false),
            spec_ctrl: AtomicU64::new(0),
            mcu_opt_ctrl: AtomicU64::new(0),
        }
    }

    /// This CPU, which executes it, has `means`.
    pub fn start(&self, means: Means) {
        self.means.call_once(|| means);
    }

    /// What is done from here to [`Self::end`] needs no look of its own.
    pub fn leave(&self) {
        self.is_leaving.store(true, Ordering::Relaxed);
    }

    /// Whether something has to call [`Self::end`] before a guest is entered, and nothing is about to.
    pub fn wants_end(&self) -> bool {
        self.is_touched.load(Ordering::Relaxed) && !self.is_leaving.load(Ordering::Relaxed)
    }

    /// Private memory is about to be mapped.
    pub fn begin(&self, processor: &(impl Msrs + Barriers)) {
        if self.is_touched.swap(true, Ordering::Relaxed) {
            // Nobody else ran in between.
            return;
        }
        let means = self.means();
        if !self.has_guests.swap(true, Ordering::Relaxed) {
            self.put_guests_choices_aside(means, processor);
        }
        if means.has_predictor_barrier {
            // The register is there and takes this value: CPUID says so.
            let _ = processor.write(Msr::IA32_PRED_CMD, IBPB);
        }
        processor.fill_return_stack();
    }

    /// A guest's processor is about to be entered; `is_private` where what runs next is in a compartment, not the
    /// guest.
    #[inline]
    pub fn end(&self, processor: &(impl Msrs + Barriers), is_private: bool) {
        self.is_leaving.store(false, Ordering::Relaxed);
        if self.is_touched.swap(false, Ordering::Relaxed) {
            drop_traces(self.means(), processor);
        }
        if !is_private && self.has_guests.swap(false, Ordering::Relaxed) {
            self.give_guests_choices_back(self.means(), processor);
        }
    }

    fn means(&self) -> &Means {
        match self.means.get() {
            Some(means) => means,
            None => unreachable!("a CPU says at its start what it has"),
        }
    }

    fn put_guests_choices_aside(&self, means: &Means, processor: &impl Msrs) {
        if !means.spec_ctrl.is_empty() {
            self.spec_ctrl.store(processor.read(Msr::IA32_SPEC_CTRL).unwrap_or(0), Ordering::Relaxed);
            let _ = processor.write(Msr::IA32_SPEC_CTRL, means.spec_ctrl.bits());
        }
        if means.has_srbds_switch {
            let value = processor.read(Msr::IA32_MCU_OPT_CTRL).unwrap_or(0);
            self.mcu_opt_ctrl.store(value, Ordering::Relaxed);
            if value & McuOptCtrl::RNGDS_MITG_DIS.bits() != 0 {
                let _ = processor.write(Msr::IA32_MCU_OPT_CTRL, value & !McuOptCtrl::RNGDS_MITG_DIS.bits());
            }
        }
    }

    /// What was read from a register fits it.
    fn give_guests_choices_back(&self, means: &Means, processor: &impl Msrs) {
        let value = self.mcu_opt_ctrl.load(Ordering::Relaxed);
        if means.has_srbds_switch && value & McuOptCtrl::RNGDS_MITG_DIS.bits() != 0 {
            let _ = processor.write(Msr::IA32_MCU_OPT_CTRL, value);
        }
        if !means.spec_ctrl.is_empty() {
            let _ = processor.write(Msr::IA32_SPEC_CTRL, self.spec_ctrl.load(Ordering::Relaxed));
        }
    }
}

/// Buffers come last: the flush of the cache goes through them.
fn drop_traces(means: &Means, processor: &(impl Msrs + Barriers)) {
    if means.has_predictor_barrier {
        let _ = processor.write(Msr::IA32_PRED_CMD, IBPB);
    }
    if means.flushes_cache {
        let _ = processor.write(Msr::IA32_FLUSH_CMD, L1D_FLUSH);
    }
    if means.overwrites_buffers {
        processor.overwrite_buffers();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hw::sim::SpeculationAct::{FillReturnStack, OverwriteBuffers, Write};
    use hw::sim::{SimCpuid, SimMsrs, SimSpeculation};
    use x86::cpuid::CpuidResult;

    const GUESTS: u64 = 4;

    fn cpuid(edx: u32, further: u32) -> SimCpuid {
        SimCpuid::default()
            .with(0, 0, CpuidResult { eax: 7, ..CpuidResult::default() })
            .with(7, 0, CpuidResult { eax: 2, edx, ..CpuidResult::default() })
            .with(7, 2, CpuidResult { edx: further, ..CpuidResult::default() })
    }

    fn processor(capabilities: u64) -> SimSpeculation {
        SimSpeculation::new(SimMsrs::new([
            (Msr::IA32_ARCH_CAPABILITIES, capabilities),
            (Msr::IA32_SPEC_CTRL, GUESTS),
            (Msr::IA32_PRED_CMD, 0),
            (Msr::IA32_FLUSH_CMD, 0),
            (Msr::IA32_MCU_OPT_CTRL, 1),
        ]))
    }

    fn crossing(means: Means) -> Crossing {
        let crossing = Crossing::new();
        crossing.start(means);
        crossing
    }

    #[test]
    fn each_cpu_does_what_it_can_whatever_another_has() {
        let processor = processor(0);
        let all = Means::of(&cpuid(!0, 1 << 2 | 1 << 4), &processor);
        let no_means = Means::default();
        let acts = |means| {
            let crossing = crossing(means);
            crossing.begin(&processor);
            crossing.end(&processor, false);
            processor.take_history().len()
        };
        assert_eq!([acts(no_means), acts(all), acts(no_means)], [1, 9, 1]);
    }

    #[test]
    fn private_memory_is_behind_barriers_both_ways() {
        let processor = processor(0);
        let means = Means::of(&cpuid(!0, 1 << 2 | 1 << 4), &processor);
        let crossing = crossing(means);
        crossing.begin(&processor);
        let strict = Write(Msr::IA32_SPEC_CTRL, 0x467);
        let barrier = Write(Msr::IA32_PRED_CMD, 1);
        let begun = [strict, Write(Msr::IA32_MCU_OPT_CTRL, 0), barrier, FillReturnStack];
        assert_eq!(processor.take_history(), begun);
        crossing.begin(&processor);
        assert_eq!(processor.take_history(), [], "nothing ran in between");
        crossing.end(&processor, true);
        let dropped = [barrier, Write(Msr::IA32_FLUSH_CMD, 1), OverwriteBuffers];
        assert_eq!(processor.take_history(), dropped, "a compartment runs under our choices");
        crossing.begin(&processor);
        assert_eq!(processor.take_history(), [barrier, FillReturnStack], "they hold already");
        crossing.end(&processor, false);
        let guests = [Write(Msr::IA32_MCU_OPT_CTRL, 1), Write(Msr::IA32_SPEC_CTRL, GUESTS)];
        assert_eq!(processor.take_history(), [&dropped[..], &guests].concat());
        crossing.end(&processor, false);
        assert_eq!(processor.take_history(), [], "nothing was touched");
    }

    #[test]
    fn an_end_is_asked_for_once_a_crossing() {
        let (processor, crossing) = (processor(0), crossing(Means::default()));
        assert!(!crossing.wants_end());
        crossing.begin(&processor);
        assert!(crossing.wants_end());
        crossing.leave();
        crossing.begin(&processor);
        assert!(!crossing.wants_end(), "the last look is under way");
        crossing.end(&processor, false);
        assert!(!crossing.wants_end());
        crossing.begin(&processor);
        assert!(crossing.wants_end());
    }

    #[test]
    fn a_compartment_left_untouched_gives_the_guest_its_choices() {
        let processor = processor(0);
        let means = Means::of(&cpuid(1 << 26, 0), &processor);
        let crossing = crossing(means);
        crossing.begin(&processor);
        crossing.end(&processor, true);
        assert!(!processor.take_history().is_empty());
        crossing.end(&processor, false);
        assert_eq!(processor.take_history(), [Write(Msr::IA32_SPEC_CTRL, GUESTS)]);
    }

    #[test]
    fn what_is_not_enumerated_is_not_done() {
        let processor = processor(0);
        for cpuid in [
            cpuid(0, 0),
            SimCpuid::default().with(0, 0, CpuidResult::default()).with(
                7,
                0,
                CpuidResult { edx: !0, ..CpuidResult::default() },
            ),
        ] {
            let means = Means::of(&cpuid, &processor);
            assert_eq!(means, Means::default());
            let crossing = crossing(means);
            crossing.begin(&processor);
            crossing.end(&processor, false);
            assert_eq!(processor.take_history(), [FillReturnStack]);
        }
    }

    #[test]
    fn capabilities_decide_flushes_and_buffers() {
        let of = |edx, capabilities| {
            let means = Means::of(&cpuid(edx, 0), &processor(capabilities));
            (means.flushes_cache, means.overwrites_buffers)
        };
        let (md_clear, flush, has_capabilities) = (1 << 10, 1 << 28, 1 << 29);
        assert_eq!(of(flush, 0), (true, false));
        assert_eq!(of(flush, 1), (true, false), "capabilities that are not there say nothing");
        assert_eq!(of(flush | has_capabilities, 1), (false, false), "not vulnerable");
        assert_eq!(of(flush | has_capabilities, 1 << 3), (false, false), "done beneath");
        assert_eq!(of(md_clear, 0), (false, true));
        assert_eq!(of(has_capabilities, 1 << 17), (false, true));
        assert_eq!(of(has_capabilities, 1 << 28), (false, true));
        assert_eq!(of(0, 0), (false, false));
    }
}
