//! What keeps speculation from secrets: barriers on a CPU's way from the guest to private memory and back.
//!
//! Outside that way the hypervisor has nothing that the guest does not have itself: no memory of a PAL and no key is
//! mapped ([`crate::memory::private`]), so a wrong branch or a stale load of ours finds nothing, and an ordinary exit
//! takes no barrier. On that way, in this order: the guest's choices in IA32_SPEC_CTRL give way to the strictest ones,
//! what the guest taught the predictors is dropped, and only then is private memory mapped. Before the guest goes on,
//! what private code taught the predictors is dropped, caches and buffers that its data went through are overwritten,
//! and the guest has its choices back.
//!
//! Mitigations that the processor does not enumerate are left out: there what they are against is not mitigated by anybody.
//! `docs/threat-model.md` has the table.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use hw::{Barriers, Cpuid, Msrs};
use spin::Once;
use x86::msr::{GuestMsr, Msr};
use x86::speculation::{
    ArchCapabilities, DOITM, IBPB, L1D_FLUSH, McuOptCtrl, SpecCtrl, SpecCtrlFeatures, SpeculationFeatures,
};

const CPUID_FEATURES: u32 = 7;
/// Subleaf with further bits of IA32_SPEC_CTRL.
const SPEC_CTRL_SUBLEAF: u32 = 2;

/// What one CPU has against speculation; decided at its start, before a guest can change what CPUID says. CPUs of a hybrid processor
/// may differ, so each is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mitigations {
    /// What IA32_SPEC_CTRL is on the way; empty where there is no such register.
    spec_ctrl: SpecCtrl,
    has_predictor_barrier: bool,
    /// A fault can leave data of the first-level cache to a guest, and the cache can be flushed.
    flushes_cache: bool,
    overwrites_buffers: bool,
    /// Bits of IA32_MCU_OPT_CTRL by which the guest can switch mitigations off; empty where there are none.
    switches: McuOptCtrl,
    /// One more, which acts on what the guest itself executes behind the way, and can be locked.
    can_lock_gather: bool,
    /// The time of instructions can be made not to depend on their data.
    has_doitm: bool,
}

impl Mitigations {
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
            switches: switches(features, capabilities),
            can_lock_gather: capabilities.contains(ArchCapabilities::GDS_CTRL),
            has_doitm: capabilities.contains(ArchCapabilities::DOITM),
        }
    }
}

/// Mitigations that this processor lets software switch off.
fn switches(features: SpeculationFeatures, capabilities: ArchCapabilities) -> McuOptCtrl {
    let mut switches = McuOptCtrl::empty();
    switches.set(McuOptCtrl::RNGDS_MITG_DIS, features.contains(SpeculationFeatures::SRBDS_CTRL));
    switches.set(McuOptCtrl::FB_CLEAR_DIS, capabilities.contains(ArchCapabilities::FB_CLEAR_CTRL));
    switches
}

/// Returns every restriction that IA32_SPEC_CTRL of this processor has.
fn strictest(features: SpeculationFeatures, further: SpecCtrlFeatures) -> SpecCtrl {
    let mut value = SpecCtrl::empty();
    value.set(SpecCtrl::IBRS, features.contains(SpeculationFeatures::IBRS_AND_IBPB));
    value.set(SpecCtrl::STIBP, features.contains(SpeculationFeatures::STIBP));
    value.set(SpecCtrl::SSBD, features.contains(SpeculationFeatures::SSBD));
    let rrsba = SpecCtrl::RRSBA_DIS_U | SpecCtrl::RRSBA_DIS_S;
    value.set(rrsba, further.contains(SpecCtrlFeatures::RRSBA_CTRL));
    value.set(SpecCtrl::BHI_DIS_S, further.contains(SpecCtrlFeatures::BHI_CTRL));
    let ipred = SpecCtrl::IPRED_DIS_U | SpecCtrl::IPRED_DIS_S;
    value.set(ipred, further.contains(SpecCtrlFeatures::IPRED_CTRL));
    value.set(SpecCtrl::PSFD, further.contains(SpecCtrlFeatures::PSFD));
    value.set(SpecCtrl::DDPD_U, further.contains(SpecCtrlFeatures::DDPD_U));
    value
}

/// How far one CPU is on the way. It alone uses this.
#[derive(Debug, Default)]
pub struct Crossing {
    /// What this CPU has.
    mitigations: Once<Mitigations>,
    /// Private memory was mapped since the guest last ran.
    is_touched: AtomicBool,
    /// The guest's choices are put aside: this CPU is on the way, or its guest is in a compartment.
    has_guests: AtomicBool,
    /// The CPU looks around for the last time before it enters a guest, and [`Self::end`] follows.
    is_leaving: AtomicBool,
    spec_ctrl: AtomicU64,
    mcu_opt_ctrl: AtomicU64,
    uarch_misc_ctl: AtomicU64,
}

impl Crossing {
    /// Nothing was touched yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            mitigations: Once::new(),
            is_touched: AtomicBool::new(false),
            has_guests: AtomicBool::new(false),
            is_leaving: AtomicBool::new(false),
            spec_ctrl: AtomicU64::new(0),
            mcu_opt_ctrl: AtomicU64::new(0),
            uarch_misc_ctl: AtomicU64::new(0),
        }
    }

    /// This CPU, which executes it, has `mitigations`. Has it keep what protects from a guest's gathers, for good: what they
    /// could be given outlasts the way out (Intel, "Gather Data Sampling").
    pub fn start(&self, mitigations: Mitigations, processor: &impl Msrs) {
        if mitigations.can_lock_gather {
            let value = processor.read(Msr::IA32_MCU_OPT_CTRL).unwrap_or(0);
            let kept = value & !McuOptCtrl::GDS_MITG_DIS.bits() | McuOptCtrl::GDS_MITG_LOCK.bits();
            // Where the firmware has locked it already, the register takes this and stays as it is.
            let _ = processor.write(GuestMsr::IA32_MCU_OPT_CTRL, kept);
        }
        self.mitigations.call_once(|| mitigations);
    }

    /// What is done from here to [`Self::end`] needs no look of its own.
    pub fn leave(&self) {
        self.is_leaving.store(true, Ordering::Relaxed);
    }

    /// Returns whether something has to call [`Self::end`] before a guest is entered, and nothing is about to.
    pub fn wants_end(&self) -> bool {
        self.is_touched.load(Ordering::Relaxed) && !self.is_leaving.load(Ordering::Relaxed)
    }

    /// Private memory is about to be mapped.
    pub fn begin(&self, processor: &(impl Msrs + Barriers)) {
        if self.is_touched.swap(true, Ordering::Relaxed) {
            // Nobody else ran in between.
            return;
        }
        let mitigations = self.mitigations();
        if !self.has_guests.swap(true, Ordering::Relaxed) {
            self.put_guests_choices_aside(mitigations, processor);
        }
        if mitigations.has_predictor_barrier {
            // The register is there and takes this value: CPUID says so.
            let _ = processor.write(GuestMsr::IA32_PRED_CMD, IBPB);
        }
        processor.fill_return_stack();
    }

    /// A guest's processor is about to be entered; `is_private` where what runs next is in a compartment, not the
    /// guest.
    #[inline]
    pub fn end(&self, processor: &(impl Msrs + Barriers), is_private: bool) {
        self.is_leaving.store(false, Ordering::Relaxed);
        if self.is_touched.swap(false, Ordering::Relaxed) {
            drop_traces(self.mitigations(), processor);
        }
        if !is_private && self.has_guests.swap(false, Ordering::Relaxed) {
            self.give_guests_choices_back(self.mitigations(), processor);
        }
    }

    fn mitigations(&self) -> &Mitigations {
        match self.mitigations.get() {
            Some(mitigations) => mitigations,
            None => unreachable!("a CPU says at its start what it has"),
        }
    }

    fn put_guests_choices_aside(&self, mitigations: &Mitigations, processor: &impl Msrs) {
        if !mitigations.spec_ctrl.is_empty() {
            self.spec_ctrl.store(processor.read(Msr::IA32_SPEC_CTRL).unwrap_or(0), Ordering::Relaxed);
            let _ = processor.write(GuestMsr::IA32_SPEC_CTRL, mitigations.spec_ctrl.bits());
        }
        if !mitigations.switches.is_empty() {
            let value = processor.read(Msr::IA32_MCU_OPT_CTRL).unwrap_or(0);
            self.mcu_opt_ctrl.store(value, Ordering::Relaxed);
            if value & mitigations.switches.bits() != 0 {
                let _ = processor.write(GuestMsr::IA32_MCU_OPT_CTRL, value & !mitigations.switches.bits());
            }
        }
        if mitigations.has_doitm {
            let value = processor.read(Msr::IA32_UARCH_MISC_CTL).unwrap_or(DOITM);
            self.uarch_misc_ctl.store(value, Ordering::Relaxed);
            if value & DOITM == 0 {
                let _ = processor.write(GuestMsr::IA32_UARCH_MISC_CTL, value | DOITM);
            }
        }
    }

    /// What was read from a register fits it.
    fn give_guests_choices_back(&self, mitigations: &Mitigations, processor: &impl Msrs) {
        let value = self.uarch_misc_ctl.load(Ordering::Relaxed);
        if mitigations.has_doitm && value & DOITM == 0 {
            let _ = processor.write(GuestMsr::IA32_UARCH_MISC_CTL, value);
        }
        let value = self.mcu_opt_ctrl.load(Ordering::Relaxed);
        if value & mitigations.switches.bits() != 0 {
            let _ = processor.write(GuestMsr::IA32_MCU_OPT_CTRL, value);
        }
        if !mitigations.spec_ctrl.is_empty() {
            let _ = processor.write(GuestMsr::IA32_SPEC_CTRL, self.spec_ctrl.load(Ordering::Relaxed));
        }
    }
}

/// Buffers come last: the flush of the cache goes through them.
fn drop_traces(mitigations: &Mitigations, processor: &(impl Msrs + Barriers)) {
    if mitigations.has_predictor_barrier {
        let _ = processor.write(GuestMsr::IA32_PRED_CMD, IBPB);
    }
    if mitigations.flushes_cache {
        let _ = processor.write(GuestMsr::IA32_FLUSH_CMD, L1D_FLUSH);
    }
    if mitigations.overwrites_buffers {
        processor.overwrite_buffers();
    }
}

#[cfg(test)]
#[path = "speculation_tests.rs"]
mod tests;
