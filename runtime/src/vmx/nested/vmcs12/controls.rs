//! The control words of VMCS12.

use crate::smp::watched_events::WatchedEvents;
use hw::Vmcs;
use x86::cr::Cr0;
use x86::vmx::controls::{EntryControls, ExitControls, PinBasedControls, PrimaryControls, SecondaryControls};
use x86::vmx::vmcs;

/// The control words that L1 wrote to VMCS12; secondary controls that are not activated are all 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct L1Controls {
    pub(crate) pin_based: PinBasedControls,
    pub(crate) primary: PrimaryControls,
    pub(crate) secondary: SecondaryControls,
    pub(crate) exit: ExitControls,
    pub(crate) entry: EntryControls,
}

impl L1Controls {
    #[inline(always)]
    pub(crate) fn of(vmcs12: &impl Vmcs) -> Self {
        let primary = PrimaryControls::from_bits_retain(vmcs12.read(vmcs::PRIMARY_CONTROLS));
        let secondary = if primary.contains(PrimaryControls::ACTIVATE_SECONDARY_CONTROLS) {
            vmcs12.read(vmcs::SECONDARY_CONTROLS)
        } else {
            0
        };
        Self {
            pin_based: PinBasedControls::from_bits_retain(vmcs12.read(vmcs::PIN_BASED_CONTROLS)),
            primary,
            secondary: SecondaryControls::from_bits_retain(secondary),
            exit: ExitControls::from_bits_retain(vmcs12.read(vmcs::EXIT_CONTROLS)),
            entry: EntryControls::from_bits_retain(vmcs12.read(vmcs::ENTRY_CONTROLS)),
        }
    }

    /// Returns what L1 has exit of what a hypapp can watch.
    pub(crate) fn watched_events(&self) -> WatchedEvents {
        let mut events = WatchedEvents::empty();
        let interrupts = self.pin_based.contains(PinBasedControls::EXTERNAL_INTERRUPT_EXITING);
        events.set(WatchedEvents::EXTERNAL_INTERRUPT, interrupts);
        let windows = self.primary.contains(PrimaryControls::INTERRUPT_WINDOW_EXITING);
        events.set(WatchedEvents::INTERRUPT_WINDOW, windows);
        events
    }

    /// L2 runs under tables of L1's.
    pub(crate) const fn has_ept(&self) -> bool {
        self.secondary.contains(SecondaryControls::ENABLE_EPT)
    }

    /// CR0 bits that L2 cannot clear (SDM, "Restrictions on VMX Operation"; "Unrestricted Guests").
    pub(crate) const fn fixed_cr0(&self) -> Cr0 {
        if self.secondary.contains(SecondaryControls::UNRESTRICTED_GUEST) {
            Cr0::NE
        } else {
            Cr0::NE.union(Cr0::PE).union(Cr0::PG)
        }
    }
}
