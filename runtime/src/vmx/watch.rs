//! Exits that a hypapp switches on and off, on the CPU that it runs on.
//!
//! UNSAFETY: the current VMCS, while an exit is handled.
#![expect(unsafe_code, reason = "current VMCS")]

use crate::smp::percpu;
use hw::Vmcs;
use hw::bare::vmx::CurrentVmcs;
use x86::vmx::controls::{PinBasedControls, PrimaryControls};
use x86::vmx::vmcs;

/// Makes external interrupts exit, or reach the guest.
pub(crate) fn watch_external_interrupts(wanted: bool) {
    percpu::current().require_guest();
    // SAFETY: this CPU has a guest, and hypapps run while an exit of its is handled: its VMCS is current.
    let mut vmcs = unsafe { CurrentVmcs::new() };
    let mut controls = PinBasedControls::from_bits_retain(vmcs.read(vmcs::PIN_BASED_CONTROLS));
    controls.set(PinBasedControls::EXTERNAL_INTERRUPT_EXITING, wanted);
    vmcs.write(vmcs::PIN_BASED_CONTROLS, controls.bits());
}

/// Asks for an exit when the guest can take an interrupt, or no longer does.
pub(crate) fn watch_interrupt_window(wanted: bool) {
    percpu::current().require_guest();
    // SAFETY: as above.
    let mut vmcs = unsafe { CurrentVmcs::new() };
    let mut controls = PrimaryControls::from_bits_retain(vmcs.read(vmcs::PRIMARY_CONTROLS));
    controls.set(PrimaryControls::INTERRUPT_WINDOW_EXITING, wanted);
    vmcs.write(vmcs::PRIMARY_CONTROLS, controls.bits());
}
