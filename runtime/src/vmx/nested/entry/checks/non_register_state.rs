//! What of the guest's state is in no register (SDM, "Checks on Guest Non-Register State").

use super::{Entry, Rule, require};
use crate::memory::guest::GuestMemory;
use crate::vmx::nested::vmcs12::{NO_LINK, SHADOW_VMCS};
use hw::Vmcs;
use x86::address::GuestPhysAddr;
use x86::cr::Rflags;
use x86::debug::{Debugctl, PendingDebugExceptions};
use x86::event::Vector;
use x86::segment::AccessRights;
use x86::vmx::capability::{VmxBasic, VmxMisc};
use x86::vmx::controls::{PinBasedControls, SecondaryControls};
use x86::vmx::interruption::{ActivityState, Interruptibility, Interruption, InterruptionType};
use x86::vmx::vmcs;

/// Activity state, interruptibility state and pending debug exceptions.
pub(super) fn check<V: Vmcs>(entry: &Entry<'_, V>) -> Result<(), Rule> {
    activity(entry)?;
    interruptibility(entry)?;
    pending_debug_exceptions(entry)
}

fn activity_of<V: Vmcs>(entry: &Entry<'_, V>) -> ActivityState {
    ActivityState(entry.read(vmcs::GUEST_ACTIVITY))
}

fn interruptibility_of<V: Vmcs>(entry: &Entry<'_, V>) -> Interruptibility {
    Interruptibility::from_bits_retain(entry.read(vmcs::GUEST_INTERRUPTIBILITY))
}

fn activity<V: Vmcs>(entry: &Entry<'_, V>) -> Result<(), Rule> {
    let state = activity_of(entry);
    require(VmxMisc(entry.capability.misc).has_activity(state), "activity state")?;
    let privilege = AccessRights::from_bits_retain(entry.read(vmcs::GUEST_SS_ACCESS_RIGHTS)).dpl();
    require(state != ActivityState::HLT || privilege == 0, "HLT above privilege level 0")?;
    let shadow = Interruptibility::BLOCKING_BY_STI | Interruptibility::BLOCKING_BY_MOV_SS;
    require(
        state == ActivityState::ACTIVE || !interruptibility_of(entry).intersects(shadow),
        "inactive in the shadow of STI or MOV SS",
    )?;
    let is_woken = entry.injected().is_none_or(|event| can_take(state, event));
    require(is_woken, "event that the activity state does not take")
}

/// Returns whether an event may be injected in this activity state.
fn can_take(state: ActivityState, event: Interruption) -> bool {
    let is_exception = event.kind() == InterruptionType::HARDWARE_EXCEPTION;
    let is_machine_check = is_exception && event.vector() == Vector::MC.0;
    let is_nmi = event.kind() == InterruptionType::NMI;
    match state {
        ActivityState::ACTIVE => true,
        ActivityState::HLT => {
            is_nmi
                || is_machine_check
                || is_exception && event.vector() == Vector::DB.0
                || event.kind() == InterruptionType::EXTERNAL
                || event.kind() == InterruptionType::OTHER
        }
        ActivityState::SHUTDOWN => is_nmi || is_machine_check,
        _ => false,
    }
}

fn interruptibility<V: Vmcs>(entry: &Entry<'_, V>) -> Result<(), Rule> {
    let state = interruptibility_of(entry);
    let has = |blocking| state.contains(blocking);
    let injects = |kind| entry.injected().is_some_and(|event| event.kind() == kind);
    let shadow = Interruptibility::BLOCKING_BY_STI | Interruptibility::BLOCKING_BY_MOV_SS;

    require(state.bits() & !Interruptibility::all().bits() == 0, "reserved bits of the interruptibility")?;
    require(!state.contains(shadow), "blocking by STI and by MOV SS")?;
    require(
        !has(Interruptibility::BLOCKING_BY_STI) || entry.guest_flags().contains(Rflags::IF),
        "blocking by STI with RFLAGS.IF 0",
    )?;
    require(
        !injects(InterruptionType::EXTERNAL) || !state.intersects(shadow),
        "injection of an external interrupt that is blocked",
    )?;
    // Whether blocking by STI keeps an NMI out depends on the processor: the hardware checks it.
    require(
        !injects(InterruptionType::NMI) || !has(Interruptibility::BLOCKING_BY_MOV_SS),
        "injection of an NMI that MOV SS blocks",
    )?;
    // There is no system-management mode for L1.
    require(!has(Interruptibility::BLOCKING_BY_SMI), "blocking by SMI")?;
    let has_virtual_nmis = entry.controls.pin_based.contains(PinBasedControls::VIRTUAL_NMIS);
    require(
        !has_virtual_nmis || !injects(InterruptionType::NMI) || !has(Interruptibility::BLOCKING_BY_NMI),
        "injection of a virtual NMI that is blocked",
    )?;
    require(
        !has(Interruptibility::ENCLAVE_INTERRUPTION)
            || entry.processor.has_sgx && !has(Interruptibility::BLOCKING_BY_MOV_SS),
        "enclave interruption",
    )
}

fn pending_debug_exceptions<V: Vmcs>(entry: &Entry<'_, V>) -> Result<(), Rule> {
    type Pending = PendingDebugExceptions;
    let pending = Pending::from_bits_retain(entry.read(vmcs::GUEST_PENDING_DEBUG_EXCEPTIONS));
    let mut defined =
        Pending::BREAKPOINTS | Pending::ENABLED_BREAKPOINT | Pending::SINGLE_STEP | Pending::TRANSACTION;
    defined.set(Pending::BUS_LOCK, entry.processor.has_bus_lock_detection);
    require(pending.difference(defined).is_empty(), "reserved bits of the pending debug exceptions")?;
    let shadow = Interruptibility::BLOCKING_BY_STI | Interruptibility::BLOCKING_BY_MOV_SS;
    if interruptibility_of(entry).intersects(shadow) || activity_of(entry) == ActivityState::HLT {
        let debugctl = Debugctl::from_bits_retain(entry.read(vmcs::GUEST_DEBUGCTL));
        let is_stepping = entry.guest_flags().contains(Rflags::TF) && !debugctl.contains(Debugctl::BTF);
        require(pending.contains(Pending::SINGLE_STEP) == is_stepping, "pending single step")?;
    }
    let is_transaction_right = !pending.contains(Pending::TRANSACTION)
        || pending == Pending::TRANSACTION | Pending::ENABLED_BREAKPOINT
            && entry.processor.has_rtm
            && !interruptibility_of(entry).contains(Interruptibility::BLOCKING_BY_MOV_SS);
    require(is_transaction_right, "debug exception in a transaction")
}

/// Checks the VMCS link pointer: nothing, or another VMCS than the current one, of the kind that the controls say.
pub(super) fn link_pointer<V: Vmcs, M: GuestMemory + ?Sized>(
    entry: &Entry<'_, V>,
    memory: &M,
) -> Result<(), Rule> {
    let link = entry.read(vmcs::VMCS_LINK_POINTER);
    if link == NO_LINK {
        return Ok(());
    }
    require(entry.is_physical(vmcs::VMCS_LINK_POINTER, 12), "address in the VMCS link pointer")?;
    let mut revision = [0; 4];
    let is_readable = memory.read(GuestPhysAddr::new(link), &mut revision).is_ok();
    let has_shadowing = entry.has_secondary(SecondaryControls::VMCS_SHADOWING);
    let wanted = VmxBasic(entry.capability.basic).revision() | if has_shadowing { SHADOW_VMCS } else { 0 };
    require(is_readable && u32::from_le_bytes(revision) == wanted, "revision behind the VMCS link pointer")?;
    require(entry.current.is_none_or(|current| current.get() != link), "the current VMCS linked to itself")
}
