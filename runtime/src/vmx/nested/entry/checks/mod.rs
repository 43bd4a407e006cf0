//! The checks of a VM entry, split as the manual splits them (SDM, "Checks on VMX Controls and Host-State
//! Area"; "Checking and Loading Guest State").
//!
//! Each takes VMCS12 as `&impl hw::Vmcs` and says which rule it found broken. Rules that only depend on
//! controls which [`Capability`] never offers are left to the check of reserved bits, which refuses those
//! controls.

mod controls;
mod event_injection;
mod guest_state;
mod host_state;
mod non_register_state;
mod processor;
mod segments;

#[cfg(any(test, fuzzing))]
pub(crate) mod fixture;
#[cfg(any(test, fuzzing))]
pub(crate) mod model;
#[cfg(any(test, fuzzing))]
mod model_guest;
#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod rule_tests;

pub(crate) use processor::Processor;

use crate::memory::guest::GuestMemory;
use crate::vmx::controls::Controls;
use crate::vmx::nested::capability::Capability;
use hw::Vmcs;
use x86::address::GuestPhysAddr;
use x86::vmx::controls::{EntryControls, ExitControls, PinBasedControls, PrimaryControls, SecondaryControls};
use x86::vmx::instruction_error::InstructionError;
use x86::vmx::vmcs::{self, Field, FieldValue, TrustedField};

/// A rule of the manual in a few words, for the log and for tests.
pub(crate) type Rule = &'static str;

/// A check that failed before the entry: VMfailValid, and L1 goes on behind its instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// [`InstructionError::ENTRY_CONTROLS`] or [`InstructionError::ENTRY_HOST_STATE`].
    pub(crate) error: InstructionError,
    /// The broken rule.
    pub(crate) rule: Rule,
}

/// A VM entry that failed: a VM exit to L1 with bit 31 of the exit reason set and its host state loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EntryFailure {
    /// Exit reason 33.
    GuestState {
        /// Exit qualification: 0, 2 for PDPTEs, 3 for the injection of an NMI, 4 for the VMCS link pointer.
        qualification: u64,
        /// The broken rule.
        rule: Rule,
    },
    /// Exit reason 34.
    MsrLoading {
        /// Exit qualification: number of the entry that failed, the first being 1.
        entry: u32,
    },
}

/// The PDPTEs with which L2 starts, where it uses PAE paging and VMCS12 does not hold them.
pub(crate) type LoadedPdptes = Option<[u64; 4]>;

/// Makes the checks that come before anything is loaded: on the controls, then on the host state.
pub(crate) fn check_controls_and_host<V: Vmcs, M: GuestMemory + ?Sized>(
    entry: &Entry<'_, V>,
    memory: &M,
) -> Result<(), Failure> {
    controls::check(entry, memory)
        .map_err(|rule| Failure { error: InstructionError::ENTRY_CONTROLS, rule })?;
    host_state::check(entry).map_err(|rule| Failure { error: InstructionError::ENTRY_HOST_STATE, rule })
}

/// Makes the checks on the guest state. What is returned was read once, and is what was checked.
pub(crate) fn check_guest_state<V: Vmcs, M: GuestMemory + ?Sized>(
    entry: &Entry<'_, V>,
    memory: &M,
) -> Result<LoadedPdptes, EntryFailure> {
    guest_state::check(entry, memory)
}

/// Makes the check on the VMCS link pointer and what is behind it, alone.
pub(crate) fn check_link_pointer<V: Vmcs, M: GuestMemory + ?Sized>(
    entry: &Entry<'_, V>,
    memory: &M,
) -> Result<(), EntryFailure> {
    guest_state::check_link_pointer(entry, memory)
}

/// Returns whether the checks on the controls look at the virtual task priority in L1's memory, which changes without
/// VMWRITE.
#[inline]
pub(crate) fn reads_virtual_tpr(vmcs12: &impl Vmcs) -> bool {
    let controls = effective_controls(vmcs12);
    let by_processor =
        SecondaryControls::VIRTUAL_INTERRUPT_DELIVERY.union(SecondaryControls::VIRTUALIZE_APIC_ACCESSES);
    controls.primary.contains(PrimaryControls::USE_TPR_SHADOW) && !controls.secondary.intersects(by_processor)
}

/// Returns whether a VM entry has effects of ours between the checks on the guest state and the hardware's own checks.
#[inline]
pub(crate) fn has_effects_in_between(vmcs12: &impl Vmcs) -> bool {
    vmcs12.read(vmcs::ENTRY_MSR_LOAD_COUNT) != 0
        || vmcs12.read(vmcs::ENTRY_CONTROLS) & EntryControls::LOAD_PERF_GLOBAL_CTRL.bits() != 0
}

/// A VM entry to be checked: VMCS12, its controls, and the processor that L1 believes to have.
#[derive(Debug)]
pub(crate) struct Entry<'a, V> {
    vmcs: &'a V,
    capability: &'a Capability,
    processor: &'a Processor,
    controls: Controls,
    is_ia32e: bool,
    current: Option<GuestPhysAddr>,
}

impl<'a, V: Vmcs> Entry<'a, V> {
    /// Makes the entry that `vmcs` asks for, whose page is `current`; `is_ia32e` tells whether L1 itself is in IA-32e
    /// mode.
    pub(crate) fn new(
        vmcs: &'a V,
        capability: &'a Capability,
        processor: &'a Processor,
        is_ia32e: bool,
        current: Option<GuestPhysAddr>,
    ) -> Self {
        Self { vmcs, capability, processor, controls: effective_controls(vmcs), is_ia32e, current }
    }

    fn read<T: FieldValue, const IS_TRUSTED: bool>(&self, field: Field<T, IS_TRUSTED>) -> T {
        self.vmcs.read(field)
    }

    fn has_primary(&self, control: PrimaryControls) -> bool {
        self.controls.primary.contains(control)
    }

    fn has_secondary(&self, control: SecondaryControls) -> bool {
        self.controls.secondary.contains(control)
    }

    fn has_exit(&self, control: ExitControls) -> bool {
        self.controls.exit.contains(control)
    }

    fn has_entry(&self, control: EntryControls) -> bool {
        self.controls.entry.contains(control)
    }

    /// Returns whether the field holds a physical address of this processor whose low `aligned_bits` are 0.
    fn is_physical(&self, field: TrustedField<u64>, aligned_bits: u8) -> bool {
        let address = self.read(field);
        address & ((1 << aligned_bits) - 1) == 0 && self.is_within_width(address)
    }

    const fn is_within_width(&self, address: u64) -> bool {
        match address.checked_shr(self.capability.physical_address_bits as u32) {
            Some(beyond) => beyond == 0,
            None => true,
        }
    }

    fn is_canonical<const IS_TRUSTED: bool>(&self, field: Field<u64, IS_TRUSTED>) -> bool {
        self.processor.is_canonical(self.read(field))
    }
}

/// Returns the control words of `vmcs`; secondary ones count only where they are activated.
fn effective_controls(vmcs: &impl Vmcs) -> Controls {
    let primary = PrimaryControls::from_bits_retain(vmcs.read(vmcs::PRIMARY_CONTROLS));
    let has_secondary = primary.contains(PrimaryControls::ACTIVATE_SECONDARY_CONTROLS);
    let secondary = if has_secondary { vmcs.read(vmcs::SECONDARY_CONTROLS) } else { 0 };
    Controls {
        pin_based: PinBasedControls::from_bits_retain(vmcs.read(vmcs::PIN_BASED_CONTROLS)),
        primary,
        secondary: SecondaryControls::from_bits_retain(secondary),
        exit: ExitControls::from_bits_retain(vmcs.read(vmcs::EXIT_CONTROLS)),
        entry: EntryControls::from_bits_retain(vmcs.read(vmcs::ENTRY_CONTROLS)),
    }
}

fn require(holds: bool, rule: Rule) -> Result<(), Rule> {
    if holds { Ok(()) } else { Err(rule) }
}
