//! Controls that may be switched whatever else a VMCS says: they make the guest leave more often or less, and load or
//! save state that is the guest's own.
//!
//! UNSAFETY: control words are trusted, and these bits of them need not be.
#![expect(unsafe_code, reason = "bits of control words that no memory depends on")]

use crate::smp::watched_events::WatchedEvents;
use hw::Vmcs;
use x86::vmx::controls::{EntryControls, PrimaryControls};
use x86::vmx::controls::{ExitControls, PinBasedControls};
use x86::vmx::vmcs;

const PIN_BASED: PinBasedControls =
    PinBasedControls::EXTERNAL_INTERRUPT_EXITING.union(PinBasedControls::PREEMPTION_TIMER);
const PRIMARY: PrimaryControls = PrimaryControls::INTERRUPT_WINDOW_EXITING
    .union(PrimaryControls::NMI_WINDOW_EXITING)
    .union(PrimaryControls::MONITOR_TRAP_FLAG);
const EXIT: ExitControls = ExitControls::SAVE_PREEMPTION_TIMER;
const ENTRY: EntryControls = EntryControls::IA32E_MODE_GUEST.union(EntryControls::LOAD_CET_STATE);

macro_rules! switch {
    ($(#[$doc:meta])* $name:ident $field:ident $type:ident $allowed:ident) => {
        $(#[$doc])*
        #[inline]
        pub(super) fn $name(vmcs: &mut impl Vmcs, bits: $type, wanted: bool) {
            let mut controls = $type::from_bits_retain(vmcs.read(vmcs::$field));
            controls.set(bits & $allowed, wanted);
            // SAFETY: all other bits stay as they are, and on these neither the hypervisor's memory nor its registers
            // at an exit depend.
            unsafe { vmcs.write_trusted(vmcs::$field, controls.bits()) }
        }
    };
}

switch! {
    /// Switches exits for external interrupts, or the VMX-preemption timer.
    pin_based PIN_BASED_CONTROLS PinBasedControls PIN_BASED
}
switch! {
    /// Switches exits for interrupt and NMI windows, or the monitor trap flag.
    primary PRIMARY_CONTROLS PrimaryControls PRIMARY
}
switch! {
    /// Switches whether exits save the VMX-preemption timer.
    exit EXIT_CONTROLS ExitControls EXIT
}
switch! {
    /// Switches whether the guest runs in IA-32e mode, or entries load its CET state.
    entry ENTRY_CONTROLS EntryControls ENTRY
}

/// Has `events` exit, and no others that can be watched.
pub(super) fn watched_events(vmcs: &mut impl Vmcs, events: WatchedEvents) {
    let has = |event| events.contains(event);
    pin_based(vmcs, PinBasedControls::EXTERNAL_INTERRUPT_EXITING, has(WatchedEvents::EXTERNAL_INTERRUPT));
    primary(vmcs, PrimaryControls::INTERRUPT_WINDOW_EXITING, has(WatchedEvents::INTERRUPT_WINDOW));
}

#[cfg(test)]
mod tests {
    use super::{entry, exit, pin_based, primary};
    use hw::Vmcs;
    use hw::sim::SimVmcs;
    use x86::vmx::controls::{EntryControls, ExitControls, PinBasedControls, PrimaryControls};
    use x86::vmx::vmcs;

    #[test]
    fn no_bit_is_switched_that_memory_depends_on() {
        let mut vmcs = SimVmcs::default();
        vmcs.write(vmcs::PRIMARY_CONTROLS, PrimaryControls::USE_MSR_BITMAPS.bits());
        primary(&mut vmcs, PrimaryControls::all(), true);
        let switched = PrimaryControls::INTERRUPT_WINDOW_EXITING
            | PrimaryControls::NMI_WINDOW_EXITING
            | PrimaryControls::MONITOR_TRAP_FLAG;
        let kept = PrimaryControls::USE_MSR_BITMAPS;
        assert_eq!(vmcs.read(vmcs::PRIMARY_CONTROLS), (kept | switched).bits());
        primary(&mut vmcs, PrimaryControls::all(), false);
        assert_eq!(vmcs.read(vmcs::PRIMARY_CONTROLS), kept.bits());
        pin_based(&mut vmcs, PinBasedControls::NMI_EXITING, true);
        exit(&mut vmcs, ExitControls::HOST_ADDRESS_SPACE_SIZE, true);
        entry(&mut vmcs, EntryControls::LOAD_EFER, true);
        let words = [vmcs::PIN_BASED_CONTROLS, vmcs::EXIT_CONTROLS, vmcs::ENTRY_CONTROLS];
        assert_eq!(words.map(|word| vmcs.read(word)), [0; 3]);
    }
}
