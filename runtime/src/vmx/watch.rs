//! What a hypapp switches on the CPU that it runs on: exits, and the tables that its guest runs on.
//!
//! UNSAFETY: the current VMCS, while an exit is handled.
#![expect(unsafe_code, reason = "current VMCS")]

use super::{nested, switch};
use crate::memory::TableRoot;
use crate::smp::percpu;
use hw::Vmcs;
use hw::bare::vmx::CurrentVmcs;
use x86::vmx::controls::{PinBasedControls, PrimaryControls};
use x86::vmx::ept::EptPointer;
use x86::vmx::vmcs;

/// Makes external interrupts exit, or reach the guest.
pub(crate) fn watch_external_interrupts(wanted: bool) {
    percpu::current().require_guest();
    // SAFETY: this CPU has a guest, and hypapps run while an exit of its is handled: its VMCS is current.
    let mut vmcs = unsafe { CurrentVmcs::new() };
    switch::pin_based(&mut vmcs, PinBasedControls::EXTERNAL_INTERRUPT_EXITING, wanted);
}

/// Asks for an exit when the guest can take an interrupt, or no longer does.
pub(crate) fn watch_interrupt_window(wanted: bool) {
    percpu::current().require_guest();
    // SAFETY: as above.
    let mut vmcs = unsafe { CurrentVmcs::new() };
    switch::primary(&mut vmcs, PrimaryControls::INTERRUPT_WINDOW_EXITING, wanted);
}

/// Puts this CPU's guest on the second-level tables under `root` from its next entry on.
pub(crate) fn use_second_level(root: TableRoot) {
    if nested::use_second_level(percpu::current(), root) {
        return;
    }
    percpu::current().require_guest();
    // SAFETY: this CPU has a guest, and hypapps run while an exit of its is handled: its VMCS is current.
    let mut vmcs = unsafe { CurrentVmcs::new() };
    // SAFETY: tables that give the guest nothing of the hypervisor's, as all roots are.
    unsafe { vmcs.write_trusted(vmcs::EPT_POINTER, EptPointer::new(root.table()).0) }
}
