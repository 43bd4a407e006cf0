//! What a hypapp watches on a processor whose guest is a hypervisor: it holds for L1 and for whatever L2 runs.

use super::Operation;
use super::cpu::{self, NestedCpu};
use super::vmcs12::Dirty;
use super::vmcs12::controls::L1Controls;
use crate::smp::percpu::PerCpu;
use crate::smp::watched_events::WatchedEvents;
use crate::vmx::switch;

/// Has what the hypapp watches on `cpu`, which executes this, exit from L2, and from L1 where L2 runs. Returns whether it
/// does: else the VMCS of L1 is current, and has not been changed.
pub(in crate::vmx) fn follow_watched_events(cpu: &PerCpu) -> bool {
    let Some(mut state) = cpu::of(cpu) else { return false };
    let NestedCpu { nested, hardware, .. } = &mut *state;
    // The next entry merges anew, whichever L2 it is of.
    nested.vmcs12.dirty.insert(Dirty::CONTROLS);
    if nested.operation != Operation::NonRoot {
        return false;
    }
    let events = cpu.watched.events();
    switch::watched_events(&mut hardware.select_l1(), events);
    let mut vmcs02 = hardware.select_l2();
    // What is current in a compartment is its controls; those of L2 follow when it is back.
    if !cpu.is_in_compartment() {
        switch::watched_events(&mut vmcs02, events | L1Controls::of(&nested.vmcs12).watched_events());
    }
    true
}

/// Returns what L1 has exit from L2; nothing where L1 itself runs on `cpu`, which executes this.
pub(in crate::vmx) fn events_watched_by_l1(cpu: &PerCpu) -> WatchedEvents {
    let l2 = cpu::of(cpu).filter(|state| state.nested.operation == Operation::NonRoot);
    l2.map_or(WatchedEvents::empty(), |state| L1Controls::of(&state.nested.vmcs12).watched_events())
}
