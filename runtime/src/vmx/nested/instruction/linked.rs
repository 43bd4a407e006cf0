//! VMREAD and VMWRITE by L2 that L1's bitmaps let pass: they reach the shadow VMCS that L1's VMCS link pointer
//! names (SDM, "VMREAD-Read Field from Virtual-Machine Control Structure"; "VMCS Types: Ordinary and Shadow").
//!
//! It lies in L1's memory as any VMCS that is not current, and each access reaches the one field there: nothing
//! of it is kept. An error goes to the current VMCS, as VMfail has it.

use super::{Facts, Status, check_privilege, conclude, vmcs_access};
use crate::exit::Action;
use crate::memory::guest::GuestMemory;
use crate::vmx::nested::Nested;
use crate::vmx::nested::vmcs12::{self, NO_LINK};
use crate::vmx::vcpu::VmxVcpu;
use hw::Vmcs;
use x86::address::GuestPhysAddr;
use x86::event::Event;
use x86::vmx::exit_reason::ExitReason;
use x86::vmx::instruction_error::InstructionError;
use x86::vmx::vmcs;

/// What an instruction of L2 works on.
#[derive(Debug)]
pub(in super::super) struct L2<'a, 'r, V, M, G> {
    /// L2's processor.
    pub(in super::super) vcpu: &'a mut VmxVcpu<'r, V>,
    /// L2's memory.
    pub(in super::super) memory: &'a M,
    /// L1's memory.
    pub(in super::super) l1_memory: &'a G,
    /// What L1's processor can do.
    pub(in super::super) facts: &'a Facts,
}

/// Carries out the VMREAD or VMWRITE of L2 that exited for `reason`.
pub(in super::super) fn execute<V: Vmcs, M: GuestMemory, G: GuestMemory>(
    nested: &mut Nested,
    l2: &mut L2<'_, '_, V, M, G>,
    reason: ExitReason,
) -> Action {
    let done = if reason == ExitReason::VMREAD { read(nested, l2) } else { write(nested, l2) };
    match done {
        Ok(status) => {
            conclude(nested, l2.vcpu, status);
            Action::Advance
        }
        Err(event) => Action::Inject(event),
    }
}

fn read<V: Vmcs, M: GuestMemory, G: GuestMemory>(
    nested: &Nested,
    l2: &mut L2<'_, '_, V, M, G>,
) -> Result<Status, Event> {
    check_privilege(l2.vcpu)?;
    let Some(region) = linked(nested) else { return Ok(Status::FailInvalid) };
    let Some(access) = vmcs_access::field(l2.vcpu, &l2.facts.capability) else {
        return Ok(Status::Fail(InstructionError::UNSUPPORTED_FIELD));
    };
    vmcs_access::deliver(l2.vcpu, l2.memory, vmcs12::value_at(l2.l1_memory, region, access))?;
    Ok(Status::Succeed)
}

fn write<V: Vmcs, M: GuestMemory, G: GuestMemory>(
    nested: &Nested,
    l2: &mut L2<'_, '_, V, M, G>,
) -> Result<Status, Event> {
    check_privilege(l2.vcpu)?;
    let Some(region) = linked(nested) else { return Ok(Status::FailInvalid) };
    let value = vmcs_access::source(l2.vcpu, l2.memory)?;
    match vmcs_access::writable_field(l2.vcpu, &l2.facts.capability) {
        Ok(access) => vmcs12::set_value_at(l2.l1_memory, region, access, value),
        Err(error) => return Ok(Status::Fail(error)),
    }
    Ok(Status::Succeed)
}

/// Returns the VMCS that L1 linked; VM entry checked the pointer.
fn linked(nested: &Nested) -> Option<GuestPhysAddr> {
    let link = nested.vmcs12.read(vmcs::VMCS_LINK_POINTER);
    (link != NO_LINK).then(|| GuestPhysAddr::new(link))
}

#[cfg(test)]
#[path = "linked_tests.rs"]
mod tests;
