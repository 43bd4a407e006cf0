//! L2's VMX-preemption timer (SDM, "VMX-Preemption Timer").
//!
//! It is the processor's own timer, and L1's alone: the hypervisor asks for none while L2 runs.

use hw::Vmcs;
use x86::vmx::controls::{ExitControls, PinBasedControls};
use x86::vmx::vmcs;

/// VM-exit controls under which an exit that the hypervisor keeps to itself does not wind the timer up again: the value
/// is saved, whatever L1 asks.
pub(super) fn with_saved_value(mut exit: ExitControls, pin_based: PinBasedControls) -> ExitControls {
    exit.set(ExitControls::SAVE_PREEMPTION_TIMER, is_active(pin_based));
    exit
}

/// Loads L1's value at an entry, where `pin_based` of VMCS12 has the timer on.
pub(super) fn load(vmcs02: &mut impl Vmcs, vmcs12: &impl Vmcs, pin_based: PinBasedControls) {
    if is_active(pin_based) {
        vmcs02.write(vmcs::PREEMPTION_TIMER, vmcs12.read(vmcs::PREEMPTION_TIMER));
    }
}

/// Saves the value at an exit that L1 gets, where L1's controls say so.
pub(super) fn save(
    vmcs02: &impl Vmcs,
    vmcs12: &mut impl Vmcs,
    exit: ExitControls,
    pin_based: PinBasedControls,
) {
    if exit.contains(ExitControls::SAVE_PREEMPTION_TIMER) && is_active(pin_based) {
        vmcs12.write(vmcs::PREEMPTION_TIMER, vmcs02.read(vmcs::PREEMPTION_TIMER));
    }
}

/// Returns whether the next entry exits for the timer before anything else happens.
pub(super) fn has_expired(vmcs02: &impl Vmcs) -> bool {
    let pin_based = PinBasedControls::from_bits_retain(vmcs02.read(vmcs::PIN_BASED_CONTROLS));
    is_active(pin_based) && vmcs02.read(vmcs::PREEMPTION_TIMER) == 0
}

const fn is_active(pin_based: PinBasedControls) -> bool {
    pin_based.contains(PinBasedControls::PREEMPTION_TIMER)
}
