//! What a hypapp has exit on the CPU that it runs on.
//!
//! UNSAFETY: the current VMCS, while an exit is handled.
#![expect(unsafe_code, reason = "current VMCS")]

use super::{nested, switch};
use crate::smp::percpu::{self, PerCpu};
use hw::bare::vmx::CurrentVmcs;

/// Has what the hypapp watches on this CPU exit, and what it watched no more.
pub(crate) fn follow_watched_events() {
    let cpu = percpu::current();
    cpu.require_guest();
    let is_l2 = nested::follow_watched_events(cpu);
    // The controls in force are a compartment's; those of the guest follow when it is back.
    if is_l2 || cpu.is_in_compartment() {
        return;
    }
    // SAFETY: this CPU has a guest, and hypapps run while an exit of its is handled: its VMCS is current.
    switch::watched_events(&mut unsafe { CurrentVmcs::new() }, cpu.watched.events());
}

/// Has nothing exit from the compartment that the guest of `vmcs` is about to enter because a hypapp watches.
pub(super) fn hold_watched_events(vmcs: &mut CurrentVmcs, cpu: &PerCpu) {
    if !cpu.watched.events().is_empty() {
        switch::watched_events(vmcs, nested::events_watched_by_l1(cpu));
    }
}

/// Has what the hypapp watches by now exit, where the guest of `vmcs` is back from a compartment that it entered behind
/// [`hold_watched_events`].
pub(super) fn give_watched_events_back(vmcs: &mut CurrentVmcs, cpu: &PerCpu) {
    let events = cpu.watched.events();
    if !events.is_empty() {
        switch::watched_events(vmcs, events | nested::events_watched_by_l1(cpu));
    }
}
