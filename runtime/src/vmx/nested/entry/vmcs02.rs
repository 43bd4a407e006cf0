//! The VMCS under which L2 runs: what L1 wishes, within what it was offered, and what the hypervisor needs.
//!
//! The checks let no control pass that was not offered, and nothing is offered that is not dealt with here.
//! Guest-physical is host-physical, so an address of L1's is the hardware's once the memory was found to be
//! L1's; those of pages are written by the processor's own part, and followed when memory changes hands.
//!
//! UNSAFETY: control words of VMCS02, by the contract of an entry.
#![expect(unsafe_code, reason = "controls of a VMCS that a guest is entered under")]

use crate::vcpu::{EventState, PagingState};
use crate::vmx::controls::Controls;
use crate::vmx::nested::capability::Capability;
use crate::vmx::nested::cr_masks;
use crate::vmx::nested::preemption_timer;
use crate::vmx::nested::virtual_apic_page;
use crate::vmx::nested::vmcs12::controls::L1Controls;
use crate::vmx::nested::vmcs12::{Dirty, Vmcs12};
use crate::vmx::vcpu::VmxVcpu;
use hw::Vmcs;
use x86::cr::{Cr0, Cr4, Efer};
use x86::vmcs_fields;
use x86::vmx::capability::VmxMisc;
use x86::vmx::controls::{EntryControls, ExitControls, PinBasedControls, PrimaryControls, SecondaryControls};
use x86::vmx::vmcs;

/// What L2 inherits from L1 at an entry unless VM-entry controls load it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InheritedByL2 {
    pub(crate) cr0: Cr0,
    pub(crate) efer: Efer,
    pub(crate) pat: u64,
    dr7: u64,
    debugctl: u64,
}

impl InheritedByL2 {
    /// Returns the state of L1 at its VM entry.
    pub(crate) fn of<V: Vmcs>(l1: &VmxVcpu<'_, V>) -> Self {
        Self {
            cr0: l1.cr0(),
            efer: l1.efer(),
            pat: l1.vmcs.read(vmcs::GUEST_PAT),
            dr7: l1.dr7(),
            debugctl: l1.vmcs.read(vmcs::GUEST_DEBUGCTL),
        }
    }
}

macro_rules! copy {
    ($from:expr => $to:expr; $($field:ident)*) => { $($to.write(vmcs::$field, $from.read(vmcs::$field));)* };
}
pub(crate) use copy;

/// Writes what an entry changes in `vmcs02`, but for the event that is injected.
///
/// # Safety
///
/// 1. `vmcs12` passed the checks of an entry.
/// 2. `l0` are the controls under which L1 itself runs, and the bitmaps that they use are named in `vmcs02`.
pub(crate) unsafe fn enter(
    vmcs02: &mut impl Vmcs,
    vmcs12: &mut Vmcs12,
    capability: &Capability,
    l0: &Controls,
    inherited: &InheritedByL2,
) {
    if vmcs12.dirty.contains(Dirty::CONTROLS) {
        // SAFETY: by the caller's duties.
        unsafe { execution_controls(vmcs02, vmcs12, l0) };
        virtual_apic_page::set_controls(vmcs02, vmcs12);
        rare_controls(vmcs02, vmcs12, capability);
    }
    if vmcs12.dirty.contains(Dirty::COLD) {
        copy_cold_guest_state(vmcs12, vmcs02, capability);
    }
    hot_guest_state(vmcs02, vmcs12, capability, inherited);
    // SAFETY: by the caller's second duty.
    unsafe { inherit(vmcs02, vmcs12, l0, inherited) };
    // Kept for the exit: where L1 owns these bits, the read shadow does not say what L2 has.
    vmcs12.cache_bits = inherited.cr0 & cr_masks::CR0_OF_L0;
    // Last, as all of the above, and the checks before it, go by what is dirty.
    vmcs12.dirty = Dirty::empty();
}

/// # Safety
///
/// As for [`enter`].
unsafe fn execution_controls(vmcs02: &mut impl Vmcs, vmcs12: &Vmcs12, l0: &Controls) {
    let wanted = L1Controls::of(vmcs12);
    let pin_based = wanted.pin_based | l0.pin_based;
    // An exit loads the hypervisor's host state whatever L1 asks, and L1's wishes are carried out afterwards. Whether
    // it acknowledges an interrupt the processor alone can do; one that exits for a hypapp alone stays pending.
    let is_l1s = wanted.pin_based.contains(PinBasedControls::EXTERNAL_INTERRUPT_EXITING);
    let of_l1s = if is_l1s { ExitControls::ACKNOWLEDGE_INTERRUPT_ON_EXIT } else { ExitControls::empty() };
    let exit = l0.exit | wanted.exit & of_l1s;
    for (field, controls) in [
        (vmcs::PIN_BASED_CONTROLS, pin_based.bits()),
        (vmcs::PRIMARY_CONTROLS, primary(wanted.primary, l0).bits()),
        (vmcs::SECONDARY_CONTROLS, secondary(wanted.secondary).bits()),
        (vmcs::EXIT_CONTROLS, preemption_timer::with_saved_value(exit, pin_based).bits()),
    ] {
        // SAFETY: what was offered, and hence passed the checks, names pages of L1's alone; the hypervisor's own
        // controls, EPT and bitmaps among them, are part of each word.
        unsafe { vmcs02.write_trusted(field, controls) }
    }
    // The hypervisor itself intercepts no exception of a guest, so that L1's wishes are all there is to merge.
    copy!(vmcs12 => vmcs02; EXCEPTION_BITMAP PAGE_FAULT_ERROR_CODE_MASK PAGE_FAULT_ERROR_CODE_MATCH TSC_OFFSET);
}

/// Without I/O bitmaps of L1's the hypervisor's own stay in force, unless every port exits.
fn primary(wanted: PrimaryControls, l0: &Controls) -> PrimaryControls {
    let watched = l0.primary & PrimaryControls::INTERRUPT_WINDOW_EXITING;
    let mut primary = wanted | watched | PrimaryControls::ACTIVATE_SECONDARY_CONTROLS;
    let is_every_port = wanted.contains(PrimaryControls::UNCONDITIONAL_IO_EXITING)
        && !wanted.contains(PrimaryControls::USE_IO_BITMAPS);
    primary.set(PrimaryControls::USE_IO_BITMAPS, !is_every_port);
    primary
}

/// The page-modification log and shadow VMCSs of L1 are software's.
fn secondary(wanted: SecondaryControls) -> SecondaryControls {
    const BY_SOFTWARE: SecondaryControls =
        SecondaryControls::ENABLE_PML.union(SecondaryControls::VMCS_SHADOWING);
    (wanted - BY_SOFTWARE) | SecondaryControls::ENABLE_EPT | SecondaryControls::ENABLE_VPID
}

fn rare_controls(vmcs02: &mut impl Vmcs, vmcs12: &Vmcs12, capability: &Capability) {
    // Each field under its control: a processor without the control has no such field.
    let secondary = L1Controls::of(vmcs12).secondary;
    if secondary.contains(SecondaryControls::PAUSE_LOOP_EXITING) {
        copy!(vmcs12 => vmcs02; PLE_GAP PLE_WINDOW);
    }
    if secondary.contains(SecondaryControls::ENABLE_XSAVES) {
        copy!(vmcs12 => vmcs02; XSS_EXITING_BITMAP);
    }
    if secondary.contains(SecondaryControls::ENABLE_ENCLS_EXITING) {
        copy!(vmcs12 => vmcs02; ENCLS_EXITING_BITMAP);
    }
    if secondary.contains(SecondaryControls::ENABLE_ENCLV_EXITING) {
        copy!(vmcs12 => vmcs02; ENCLV_EXITING_BITMAP);
    }
    if secondary.contains(SecondaryControls::USE_TSC_SCALING) {
        copy!(vmcs12 => vmcs02; TSC_MULTIPLIER);
    }
    let targets = vmcs12.read(vmcs::CR3_TARGET_COUNT).min(VmxMisc(capability.misc).cr3_target_count()).min(4);
    vmcs02.write(vmcs::CR3_TARGET_COUNT, targets);
    let values = [vmcs::CR3_TARGET_0, vmcs::CR3_TARGET_1, vmcs::CR3_TARGET_2, vmcs::CR3_TARGET_3];
    for field in values.into_iter().take(targets as usize) {
        vmcs02.write(field, vmcs12.read(field));
    }
}

macro_rules! copy_cold {
    (($from:ident, $to:ident, $capability:ident)
        $($encoding:literal $type:ident $name:ident $text:literal $treatment:ident $shadow:tt [$($exists:tt)*];)*
    ) => {
        $(copy_if_cold!($treatment [$($exists)*] $name ($from, $to, $capability));)*
    };
}

macro_rules! copy_if_cold {
    (Cold [] $name:ident ($from:ident, $to:ident, $capability:ident)) => { copy!($from => $to; $name) };
    // The hardware's VMCS has these fields on some processors only.
    (Cold [$($exists:tt)+] $name:ident ($from:ident, $to:ident, $capability:ident)) => {
        if $capability.field(u64::from(vmcs::$name.encoding())).is_some() {
            copy!($from => $to; $name);
        }
    };
    ($($other:tt)*) => {};
}

/// Copies the guest state that is [`Treatment::Cold`](vmcs::Treatment::Cold), into L2's VMCS or back.
pub(crate) fn copy_cold_guest_state(from: &impl Vmcs, to: &mut impl Vmcs, capability: &Capability) {
    vmcs_fields!(copy_cold!(from, to, capability));
}

fn hot_guest_state(
    vmcs02: &mut impl Vmcs,
    vmcs12: &Vmcs12,
    capability: &Capability,
    inherited: &InheritedByL2,
) {
    let wanted = L1Controls::of(vmcs12);
    copy!(vmcs12 => vmcs02; GUEST_RIP GUEST_RSP GUEST_RFLAGS GUEST_INTERRUPTIBILITY);
    let (mask, shadow) = cr_masks::cr0_at_entry(vmcs12, inherited.cr0);
    vmcs02.write(vmcs::CR0_READ_SHADOW, shadow);
    // Else it is as the last exit left it.
    if vmcs12.dirty.contains(Dirty::GUEST_STATE) {
        copy!(vmcs12 => vmcs02;
            GUEST_CR0 GUEST_CR3 GUEST_CR4 GUEST_CS_ACCESS_RIGHTS GUEST_ACTIVITY GUEST_PENDING_DEBUG_EXCEPTIONS);
        vmcs02.write(vmcs::CR0_MASK, mask);
        let (mask, shadow) = cr_masks::cr4_at_entry(vmcs12, capability);
        vmcs02.write(vmcs::CR4_MASK, mask);
        vmcs02.write(vmcs::CR4_READ_SHADOW, shadow);
    }
    if wanted.has_ept() && uses_pdptes(vmcs12) {
        copy!(vmcs12 => vmcs02; GUEST_PDPTE0 GUEST_PDPTE1 GUEST_PDPTE2 GUEST_PDPTE3);
    }
    preemption_timer::load(vmcs02, vmcs12, wanted.pin_based);
    if wanted.secondary.contains(SecondaryControls::VIRTUAL_INTERRUPT_DELIVERY) {
        copy!(vmcs12 => vmcs02; GUEST_INTERRUPT_STATUS);
    }
}

/// Gives L2 the PDPTEs that its entry loaded from memory.
pub(crate) fn set_pdptes(vmcs02: &mut impl Vmcs, pdptes: [u64; 4]) {
    let fields = [vmcs::GUEST_PDPTE0, vmcs::GUEST_PDPTE1, vmcs::GUEST_PDPTE2, vmcs::GUEST_PDPTE3];
    for (field, value) in fields.into_iter().zip(pdptes) {
        vmcs02.write(field, value);
    }
}

/// PAE paging: the PDPTEs are state (SDM, "PDPTE Registers").
pub(crate) fn uses_pdptes(vmcs12: &impl Vmcs) -> bool {
    let cr0 = Cr0::from_bits_retain(vmcs12.read(vmcs::GUEST_CR0));
    let cr4 = Cr4::from_bits_retain(vmcs12.read(vmcs::GUEST_CR4));
    let entry = EntryControls::from_bits_retain(vmcs12.read(vmcs::ENTRY_CONTROLS));
    cr0.contains(Cr0::PG) && cr4.contains(Cr4::PAE) && !entry.contains(EntryControls::IA32E_MODE_GUEST)
}

/// What VM-entry controls do not load stays L1's (SDM, "Loading Guest Control Registers, Debug Registers, and
/// MSRs").
///
/// # Safety
///
/// `l0` are the controls under which L1 itself runs.
unsafe fn inherit(vmcs02: &mut impl Vmcs, vmcs12: &Vmcs12, l0: &Controls, inherited: &InheritedByL2) {
    let entry = L1Controls::of(vmcs12).entry;
    let is_long = entry & EntryControls::IA32E_MODE_GUEST;
    // SAFETY: as for L1, whose mode is its own matter.
    unsafe { vmcs02.write_trusted(vmcs::ENTRY_CONTROLS, (l0.entry | is_long).bits()) }
    vmcs02.write(vmcs::GUEST_EFER, efer(vmcs12, entry, inherited.efer).bits());
    if entry.contains(EntryControls::LOAD_PAT) {
        copy!(vmcs12 => vmcs02; GUEST_PAT);
    } else {
        vmcs02.write(vmcs::GUEST_PAT, inherited.pat);
    }
    if entry.contains(EntryControls::LOAD_DEBUG_CONTROLS) {
        copy!(vmcs12 => vmcs02; GUEST_DR7 GUEST_DEBUGCTL);
    } else {
        vmcs02.write(vmcs::GUEST_DR7, inherited.dr7);
        vmcs02.write(vmcs::GUEST_DEBUGCTL, inherited.debugctl);
    }
}

fn efer(vmcs12: &Vmcs12, entry: EntryControls, l1: Efer) -> Efer {
    if entry.contains(EntryControls::LOAD_EFER) {
        return Efer::from_bits_retain(vmcs12.read(vmcs::GUEST_EFER));
    }
    let is_long = entry.contains(EntryControls::IA32E_MODE_GUEST);
    let mut efer = l1;
    efer.set(Efer::LMA, is_long);
    // Without paging in L2 the entry leaves LME as it is.
    if Cr0::from_bits_retain(vmcs12.read(vmcs::GUEST_CR0)).contains(Cr0::PG) {
        efer.set(Efer::LME, is_long);
    }
    efer
}

#[cfg(test)]
#[path = "vmcs02_tests.rs"]
mod tests;
