//! Nested virtualization: the guest (L1) is a hypervisor and has guests of its own (L2).
//!
//! L1's VMX instructions exit and are carried out here ([`mod@instruction`]). Of L1's VMCS ([`vmcs12`]), checked as the
//! processor checks it, and of what the hypervisor itself (L0) needs, an [`entry`] makes the VMCS under which L2 runs,
//! VMCS02. An [`exit`] of L2 is L0's, L1's, or both. L2's [`mod@memory`], the [`bitmap`]s and [`event`]s have folders of
//! theirs.
//!
//! Everything but the glue to the machine takes its VMCSs as `&impl hw::Vmcs` and guest memory as
//! `&impl GuestMemory`, and runs in host tests.

mod bitmap;
mod capability;
mod cpu;
mod cr_masks;
mod entry;
mod event;
mod exit;
mod instruction;
mod l2_compartment;
mod l2_vcpu;
mod l2_vmcs;
#[cfg(test)]
mod machine_tests;
mod memory;
#[cfg(any(test, fuzzing))]
pub mod model;
mod msr_area;
mod performance_counters;
mod preemption_timer;
mod virtual_apic_page;
mod vmcs12;
mod vmx_abort;
mod watch;

#[cfg(test)]
pub(super) use checks::fixture::hardware as everything_of_vmx;
pub(super) use cpu::{L0Bitmaps, is_in_operation, is_l2, prepare, set_up};
pub(super) use entry::enter::{invalid_state, refused};
pub(super) use event::delivery::{machine_check_arrived, nmi_arrived};
pub(super) use event::init::{init_arrived, releases_init};
pub(super) use exit::dispatch::handle_l2_exit;
pub(super) use instruction::l1_exit::{instruction, read_msr};
pub(super) use l2_compartment::{called, controls_of_compartment};
pub(super) use memory::ept_violation::is_nested as has_second_level;
pub(crate) use memory::ept02::machine_cache::forget_changes;
pub(crate) use memory::l2::{ask_l1, memory, note_fault, translate};
pub(super) use memory::translation::{follow, use_second_level};
pub(super) use watch::{events_watched_by_l1, follow_watched_events};

use crate::memory::guest::{GuestMemory, Refused};
use crate::vcpu::Vcpu;
use capability::Capability;
use entry::{checks, vmcs02};
use event::pending_entry::PendingEntry;
use hw::{Cpuid, GeneralProtection, Msrs, Vmcs};
use instruction::Hardware;
use vmcs12::controls::L1Controls;
use vmcs12::fields::Access;
use vmcs12::{Dirty, LaunchState, Vmcs12};
use x86::address::GuestPhysAddr;
use x86::cr::Efer;
use x86::vmx::vmcs::{self, Treatment};

/// Where L1's processor is with VMX (SDM, "Introduction to VMX Operation").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    /// Outside VMX operation.
    Off,
    /// VMX root operation: L1 runs.
    Root,
    /// VMX non-root operation: L2 runs.
    NonRoot,
}

/// A processor's VMX as L1 has it.
#[derive(Debug)]
pub(super) struct Nested {
    operation: Operation,
    /// Meaningful in VMX operation.
    vmxon_pointer: GuestPhysAddr,
    /// The current-VMCS pointer.
    current: Option<GuestPhysAddr>,
    /// The current VMCS.
    vmcs12: Vmcs12,
    /// The last entry was a launch.
    is_launching: bool,
    /// What waits, and how L2 is entered.
    pending: PendingEntry,
    /// L1 was in IA-32e mode when the host state last passed the checks.
    was_ia32e: bool,
}

/// What one of L1's processors can do, constant.
#[derive(Clone, Copy, Debug)]
struct Facts {
    /// What is offered, on all of them alike.
    capability: Capability,
    /// What registers of this one accept: its kinds of cores differ in counters.
    processor: checks::Processor,
}

impl Facts {
    /// Returns what is offered on the executing processor.
    fn of_processor(
        cpuid: &impl Cpuid,
        msrs: &impl Msrs,
        physical_address_bits: u8,
    ) -> Result<Self, GeneralProtection> {
        let capability = Capability::of(msrs, physical_address_bits)?;
        Ok(Self { capability, processor: checks::Processor::of(cpuid, msrs) })
    }

    /// Returns the same on another processor, which is the executing one.
    fn on(&self, cpuid: &impl Cpuid, msrs: &impl Msrs) -> Self {
        Self { capability: self.capability, processor: checks::Processor::of(cpuid, msrs) }
    }
}

impl Nested {
    /// Outside VMX operation.
    pub(super) const fn new() -> Self {
        Self {
            operation: Operation::Off,
            vmxon_pointer: GuestPhysAddr::new(0),
            current: None,
            vmcs12: Vmcs12::new(),
            is_launching: false,
            pending: PendingEntry::new(),
            was_ia32e: false,
        }
    }

    /// L1 is in VMX operation.
    fn is_on(&self) -> bool {
        self.operation != Operation::Off
    }

    fn switch_on(&mut self, region: GuestPhysAddr) {
        self.operation = Operation::Root;
        self.vmxon_pointer = region;
        self.current = None;
    }

    fn switch_off(&mut self) {
        self.operation = Operation::Off;
        self.current = None;
    }

    /// Makes `region` current. Before, there is no current VMCS.
    fn load_current<M: GuestMemory>(
        &mut self,
        memory: &M,
        region: GuestPhysAddr,
        is_shadow: bool,
    ) -> Result<(), Refused> {
        self.vmcs12.load(memory, region)?;
        self.vmcs12.is_shadow = is_shadow;
        self.current = Some(region);
        Ok(())
    }

    /// Writes the current VMCS to its page; there is none afterwards.
    fn write_back_current<M: GuestMemory, H: Hardware>(&mut self, memory: &M, hardware: &mut H) {
        let Some(region) = self.current else { return };
        // The last chance for both: what L1 wrote without an exit, and what the VMCS of L2 has newer, would miss the
        // page.
        self.fetch_shadow(hardware);
        self.fetch_guest_state(hardware);
        self.vmcs12.store(memory, region);
        self.current = None;
        // Last, as it ends what the lines above fetch from: L1's VMREAD and VMWRITE exit again.
        hardware.current_changed(None);
    }

    /// Brings the newest value of a field into VMCS12.
    fn fetch_newest<H: Hardware>(&mut self, access: Access, hardware: &mut H) {
        if vmcs12::fields::treatment(access.index) == Treatment::Cold {
            self.fetch_guest_state(hardware);
        }
    }

    fn fetch_guest_state<H: Hardware>(&mut self, hardware: &mut H) {
        if self.vmcs12.is_stale {
            hardware.fetch_guest_state(&mut self.vmcs12);
            self.vmcs12.is_stale = false;
        }
    }

    /// Takes over what L1 wrote without an exit.
    fn fetch_shadow<H: Hardware>(&mut self, hardware: &mut H) {
        hardware.fetch_shadow(&mut self.vmcs12);
    }

    /// Makes the checks that end in VMfail. What passed and was not written since passes again, unless a check looks at
    /// more than VMCS12: the mode of L1, or the virtual TPR in its memory.
    fn check<V: Vcpu, M: GuestMemory>(
        &mut self,
        facts: &Facts,
        vcpu: &V,
        memory: &M,
    ) -> Result<(), checks::Failure> {
        let is_ia32e = vcpu.efer().contains(Efer::LMA);
        let is_new = self.vmcs12.dirty.intersects(Dirty::CONTROLS | Dirty::HOST_STATE);
        if is_new || is_ia32e != self.was_ia32e || checks::reads_virtual_tpr(&self.vmcs12) {
            checks::check_controls_and_host(&self.entry(facts, vcpu), memory)?;
            self.was_ia32e = is_ia32e;
            // The controls stay dirty: the checks of guest state and the merge ask for them too.
            self.vmcs12.dirty.remove(Dirty::HOST_STATE);
        }
        Ok(())
    }

    /// Makes the checks that end in an exit. What L1 did not write came from the processor, which checks it again; an
    /// entry that loads MSRs has to have passed before it does.
    fn check_guest_state<V: Vcpu, M: GuestMemory, H: Hardware>(
        &mut self,
        facts: &Facts,
        vcpu: &V,
        memory: &M,
        hardware: &mut H,
    ) -> Result<checks::LoadedPdptes, checks::EntryFailure> {
        let loads_pdptes = vmcs02::uses_pdptes(&self.vmcs12) && !L1Controls::of(&self.vmcs12).has_ept();
        // Controls decide which rules the state has to obey.
        let is_new = self.vmcs12.dirty.intersects(Dirty::GUEST_STATE | Dirty::CONTROLS);
        if loads_pdptes || is_new || checks::has_effects_in_between(&self.vmcs12) {
            // One part may have been written where the other is what the last exit left.
            self.fetch_guest_state(hardware);
            return checks::check_guest_state(&self.entry(facts, vcpu), memory);
        }
        if self.vmcs12.read(vmcs::VMCS_LINK_POINTER) == vmcs12::NO_LINK {
            return Ok(None);
        }
        // What is linked lies in L1's memory, where it may have changed.
        checks::check_link_pointer(&self.entry(facts, vcpu), memory).map(|()| None)
    }

    /// Makes all checks of guest state, where the hardware does not come to them.
    fn check_all_guest_state<M: GuestMemory, H: Hardware>(
        &mut self,
        facts: &Facts,
        memory: &M,
        hardware: &mut H,
    ) -> Result<(), checks::EntryFailure> {
        self.fetch_guest_state(hardware);
        let (capability, processor) = (&facts.capability, &facts.processor);
        let entry = checks::Entry::new(&self.vmcs12, capability, processor, self.was_ia32e, self.current);
        checks::check_guest_state(&entry, memory).map(|_| ())
    }

    fn entry<'a, V: Vcpu>(&'a self, facts: &'a Facts, vcpu: &V) -> checks::Entry<'a, Vmcs12> {
        let is_ia32e = vcpu.efer().contains(Efer::LMA);
        checks::Entry::new(&self.vmcs12, &facts.capability, &facts.processor, is_ia32e, self.current)
    }

    /// Begins the entry: the checks have passed.
    fn begin_entry(&mut self) {
        self.is_launching = self.vmcs12.launch_state == LaunchState::Clear;
        self.vmcs12.launch_state = LaunchState::Launched;
    }

    /// Undoes [`Self::begin_entry`]: the entry failed after all.
    fn revert_entry(&mut self) {
        self.pending.failed();
        if self.is_launching {
            self.vmcs12.launch_state = LaunchState::Clear;
        }
        // The next entry skips nothing: what is not dirty counts as checked, and as what an exit of L2 left.
        self.vmcs12.dirty = Dirty::all();
        if self.vmcs12.is_stale {
            // The VMCS of L2 still has what the last exit left, and VMCS12 has not.
            self.vmcs12.dirty.remove(Dirty::COLD);
        }
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
