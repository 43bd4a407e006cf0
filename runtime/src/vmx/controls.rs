//! The controls under which the guest runs: what we want, and what the processor allows.

use super::observers::Observers;
use crate::smp::watched_events::WatchedEvents;
use hw::Msrs;
use x86::msr::Msr;
use x86::vmx::capability::{Allowed, MissingControls, VmxBasic};
use x86::vmx::controls::{EntryControls, ExitControls, PinBasedControls, PrimaryControls, SecondaryControls};
use x86::vmx::needed::{self, ENTRY, EXIT, PIN_BASED, PRIMARY, SECONDARY};

/// Instructions that would be #UD in the guest, though CPUID offers them, without these.
const SECONDARY_IF_ALLOWED: SecondaryControls = SecondaryControls::ENABLE_RDTSCP
    .union(SecondaryControls::ENABLE_INVPCID)
    .union(SecondaryControls::ENABLE_XSAVES)
    .union(SecondaryControls::ENABLE_USER_WAIT_AND_PAUSE);

/// The control words of a VMCS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Controls {
    /// Pin-based VM-execution controls.
    pub(super) pin_based: PinBasedControls,
    /// Primary processor-based VM-execution controls.
    pub(super) primary: PrimaryControls,
    /// Secondary processor-based VM-execution controls.
    pub(super) secondary: SecondaryControls,
    /// VM-exit controls.
    pub(super) exit: ExitControls,
    /// VM-entry controls.
    pub(super) entry: EntryControls,
}

/// The processor lacks what the hypervisor cannot do without. The bootloader has checked the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unsupported {
    /// There is no such capability register.
    CapabilityMsr(Msr),
    /// A capability register does not allow these controls.
    Controls(Msr, MissingControls),
    /// It lacks one of [`needed::FEATURES`], by the SDM's name.
    Feature(&'static str),
}

impl Controls {
    /// The same, with exits for `events`.
    #[inline]
    pub(super) fn watching(mut self, events: WatchedEvents) -> Self {
        if events.contains(WatchedEvents::EXTERNAL_INTERRUPT) {
            self.pin_based |= PinBasedControls::EXTERNAL_INTERRUPT_EXITING;
        }
        if events.contains(WatchedEvents::INTERRUPT_WINDOW) {
            self.primary |= PrimaryControls::INTERRUPT_WINDOW_EXITING;
        }
        self
    }

    /// Our controls as this processor allows them, and those of `observers`, which all CPUs have to allow.
    pub(super) fn for_processor(msrs: &impl Msrs, observers: &Observers) -> Result<Self, Unsupported> {
        let basic = VmxBasic(read(msrs, Msr::IA32_VMX_BASIC)?);
        if let Some(missing) = needed::first_missing(|msr| msrs.read(msr).ok()) {
            return Err(Unsupported::Feature(missing.name));
        }
        let choose = |plain, precise| if basic.has_true_controls() { precise } else { plain };
        let pin = choose(Msr::IA32_VMX_PINBASED_CTLS, Msr::IA32_VMX_TRUE_PINBASED_CTLS);
        let primary = choose(Msr::IA32_VMX_PROCBASED_CTLS, Msr::IA32_VMX_TRUE_PROCBASED_CTLS);
        let exit = choose(Msr::IA32_VMX_EXIT_CTLS, Msr::IA32_VMX_TRUE_EXIT_CTLS);
        let entry = choose(Msr::IA32_VMX_ENTRY_CTLS, Msr::IA32_VMX_TRUE_ENTRY_CTLS);
        let (observers_exit, observers_entry) = observers.controls();
        let adjust = |msr, required, optional| {
            let allowed = Allowed(read(msrs, msr)?);
            allowed.adjust(required, optional).map_err(|missing| Unsupported::Controls(msr, missing))
        };
        let secondary = adjust(Msr::IA32_VMX_PROCBASED_CTLS2, SECONDARY.bits(), SECONDARY_IF_ALLOWED.bits())?;
        Ok(Self {
            pin_based: PinBasedControls::from_bits_retain(adjust(pin, PIN_BASED.bits(), 0)?),
            primary: PrimaryControls::from_bits_retain(adjust(primary, PRIMARY.bits(), 0)?),
            secondary: SecondaryControls::from_bits_retain(secondary),
            exit: ExitControls::from_bits_retain(adjust(exit, (EXIT | observers_exit).bits(), 0)?),
            entry: EntryControls::from_bits_retain(adjust(entry, (ENTRY | observers_entry).bits(), 0)?),
        })
    }
}

fn read(msrs: &impl Msrs, msr: Msr) -> Result<u64, Unsupported> {
    msrs.read(msr).map_err(|_| Unsupported::CapabilityMsr(msr))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vmx::observers;
    use hw::sim::SimMsrs;

    const TRUE_CONTROLS: u64 = 1 << 55;
    /// Must-be-one bits of the plain and of the precise primary controls.
    const PLAIN: u64 = 0x0401_e172;
    const PRECISE: u64 = 0x0400_6172;

    /// A processor that allows everything but `missing` of the secondary controls.
    fn processor(basic: u64, missing: SecondaryControls) -> SimMsrs {
        let all = 0xffff_ffff << 32;
        SimMsrs::new([
            (Msr::IA32_VMX_BASIC, basic),
            (Msr::IA32_VMX_PINBASED_CTLS, all),
            (Msr::IA32_VMX_TRUE_PINBASED_CTLS, all),
            (Msr::IA32_VMX_PROCBASED_CTLS, all | PLAIN),
            (Msr::IA32_VMX_TRUE_PROCBASED_CTLS, all | PRECISE),
            (Msr::IA32_VMX_PROCBASED_CTLS2, u64::from(!missing.bits()) << 32),
            (Msr::IA32_VMX_EPT_VPID_CAP, !0),
            (Msr::IA32_VMX_EXIT_CTLS, all),
            (Msr::IA32_VMX_TRUE_EXIT_CTLS, all),
            (Msr::IA32_VMX_ENTRY_CTLS, all),
            (Msr::IA32_VMX_TRUE_ENTRY_CTLS, all),
        ])
    }

    fn for_processor(msrs: &SimMsrs) -> Result<Controls, Unsupported> {
        Controls::for_processor(msrs, &Observers::default())
    }

    #[test]
    fn the_precise_capabilities_are_taken_where_there_are_any() {
        let primary = |basic| {
            let controls = for_processor(&processor(basic, SecondaryControls::empty())).unwrap();
            u64::from(controls.primary.bits())
        };
        let wanted = u64::from(PRIMARY.bits());
        assert_eq!((primary(0), primary(TRUE_CONTROLS)), (wanted | PLAIN, wanted | PRECISE));
    }

    #[test]
    fn no_ordinary_instruction_of_the_guest_is_asked_to_exit() {
        let controls = for_processor(&processor(TRUE_CONTROLS, SecondaryControls::empty())).unwrap();
        let of_ours = PrimaryControls::from_bits_retain(controls.primary.bits() & !0x0400_6172);
        assert_eq!(of_ours, PRIMARY);
        assert_eq!(controls.pin_based, PIN_BASED);
        assert_eq!(controls.secondary, SECONDARY | SECONDARY_IF_ALLOWED);
        assert!(controls.exit.contains(EXIT) && controls.entry.contains(ENTRY));
    }

    #[test]
    fn what_the_processor_lacks_is_left_out_or_named() {
        let without = SecondaryControls::ENABLE_XSAVES;
        let controls = for_processor(&processor(0, without)).unwrap();
        assert_eq!(controls.secondary, (SECONDARY | SECONDARY_IF_ALLOWED) - without);
        let none = for_processor(&SimMsrs::new([]));
        assert_eq!(none, Err(Unsupported::CapabilityMsr(Msr::IA32_VMX_BASIC)));
    }

    #[test]
    fn each_feature_that_a_cpu_lacks_is_named() {
        for feature in &needed::FEATURES {
            let msrs = processor(0, SecondaryControls::empty());
            msrs.set(feature.msr, msrs.read(feature.msr).unwrap() & !feature.bits);
            assert_eq!(for_processor(&msrs), Err(Unsupported::Feature(feature.name)));
        }
    }

    #[test]
    fn what_counts_or_records_is_asked_for_on_every_cpu() {
        let observers = observers::fixture::processor();
        let (exit, entry) = observers.controls();
        let msrs = processor(TRUE_CONTROLS, SecondaryControls::empty());
        let controls = Controls::for_processor(&msrs, &observers).unwrap();
        assert!(controls.exit.contains(exit | EXIT) && controls.entry.contains(entry | ENTRY));
        for bit in exit.iter() {
            let all = u64::from(!bit.bits()) << 32;
            msrs.set(Msr::IA32_VMX_TRUE_EXIT_CTLS, all);
            let missing = Unsupported::Controls(Msr::IA32_VMX_TRUE_EXIT_CTLS, MissingControls(bit.bits()));
            assert_eq!(Controls::for_processor(&msrs, &observers), Err(missing));
        }
    }
}
