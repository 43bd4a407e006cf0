//! What arrives at one CPU from outside its guest and waits until it looks around.

use super::call::Callee;
use super::percpu::PerCpu;
use core::ops::Range;
use core::sync::atomic::Ordering;

impl PerCpu {
    /// An NMI arrived on this CPU: ours, if one is in flight, else the guest's.
    pub(crate) fn note_nmi(&self) {
        let is_ours = self.nmi_in_flight.swap(false, Ordering::SeqCst);
        let kind = if is_ours { &self.was_called } else { &self.guest_nmi };
        kind.store(true, Ordering::SeqCst);
        self.demand_attention();
    }

    /// Addresses of this CPU's stack for NMIs.
    pub(crate) const fn nmi_stack(&self) -> &Range<u64> {
        &self.nmi_stack
    }

    /// Returns whether an NMI of ours arrived since this was last asked. One of the guest's may have been merged with
    /// it.
    pub(crate) fn take_call(&self) -> bool {
        self.was_called.load(Ordering::Relaxed) && self.was_called.swap(false, Ordering::SeqCst)
    }

    /// Returns whether this CPU's local APIC ID is to be read anew.
    pub(crate) fn take_doubt_of_id(&self) -> bool {
        self.is_id_doubted.load(Ordering::Relaxed) && self.is_id_doubted.swap(false, Ordering::SeqCst)
    }

    /// Sets the local APIC ID that this CPU is called by.
    pub(crate) fn set_apic_id(&self, id: u32) {
        self.apic_id.store(id, Ordering::SeqCst);
    }

    /// Notes a machine check, of which this CPU's guest is told before it is next entered.
    pub(crate) fn give_machine_check(&self) {
        self.has_machine_check.store(true, Ordering::SeqCst);
        self.demand_attention();
    }

    /// Returns whether the guest is to be told of a machine check.
    pub(crate) fn has_machine_check(&self) -> bool {
        self.has_machine_check.load(Ordering::Relaxed)
    }

    /// Keeps a machine check waiting that was taken too early.
    pub(crate) fn keep_machine_check(&self) {
        self.has_machine_check.store(true, Ordering::SeqCst);
    }

    /// Takes a machine check that the guest is to be told of.
    pub(crate) fn take_machine_check(&self) -> bool {
        self.has_machine_check.load(Ordering::Relaxed) && self.has_machine_check.swap(false, Ordering::SeqCst)
    }

    /// Keeps an NMI of the guest's waiting.
    pub(crate) fn keep_guest_nmi(&self) {
        self.guest_nmi.store(true, Ordering::SeqCst);
    }

    /// Keeps an INIT signal for a hypervisor in the guest waiting until its guest has left its compartment.
    pub(crate) fn keep_guest_init(&self) {
        self.guest_init.store(true, Ordering::SeqCst);
    }

    /// Takes an INIT signal that waited.
    pub(crate) fn take_guest_init(&self) -> bool {
        self.guest_init.load(Ordering::Relaxed) && self.guest_init.swap(false, Ordering::SeqCst)
    }

    /// Takes an NMI that is meant for the guest.
    pub(crate) fn take_guest_nmi(&self) -> bool {
        self.guest_nmi.swap(false, Ordering::SeqCst)
    }
}

impl Callee for PerCpu {
    fn apic_id(&self) -> u32 {
        self.apic_id()
    }

    fn expect_nmi(&self) -> bool {
        self.nmi_in_flight.swap(true, Ordering::SeqCst)
    }

    fn demand_attention(&self) {
        self.demand_attention();
    }

    fn doubt_id(&self) {
        self.is_id_doubted.store(true, Ordering::SeqCst);
    }
}
