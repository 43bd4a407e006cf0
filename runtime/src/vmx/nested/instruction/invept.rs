//! INVEPT (SDM, "INVEPT-Invalidate Translations Derived from EPT").

use super::{Hardware, L1, Status, operand};
use crate::memory::guest::GuestMemory;
use crate::vmx::nested::capability::Capability;
use hw::Vmcs;
use x86::event::Event;
use x86::vmx::capability::EptVpidCapability;
use x86::vmx::ept::EptPointer;
use x86::vmx::instruction_error::InstructionError;

const SINGLE_CONTEXT: u64 = 1;
const ALL_CONTEXTS: u64 = 2;

/// Forgets translations by one EPT pointer of L1, or by all.
pub(super) fn execute<V: Vmcs, M: GuestMemory, H: Hardware>(
    l1: &mut L1<'_, '_, V, M, H>,
) -> Result<Status, Event> {
    let capability = l1.facts.capability.ept_vpid;
    if !capability.contains(EptVpidCapability::INVEPT) {
        return Err(Event::UD);
    }
    let kind = operand::read_register(l1.vcpu, operand::information(l1.vcpu).register2());
    let is_offered = match kind {
        SINGLE_CONTEXT => capability.contains(EptVpidCapability::INVEPT_SINGLE),
        ALL_CONTEXTS => capability.contains(EptVpidCapability::INVEPT_ALL),
        _ => false,
    };
    if !is_offered {
        return Ok(Status::Fail(InstructionError::INVALID_INVALIDATION));
    }
    let descriptor = u128::from_le_bytes(operand::read(l1.vcpu, l1.memory)?);
    #[expect(clippy::cast_possible_truncation, reason = "the lower half of the descriptor")]
    let ept_pointer = descriptor as u64;
    if kind == ALL_CONTEXTS {
        l1.hardware.invalidate_ept(None);
    } else if is_valid(ept_pointer, &l1.facts.capability) {
        l1.hardware.invalidate_ept(Some(ept_pointer));
    } else {
        return Ok(Status::Fail(InstructionError::INVALID_INVALIDATION));
    }
    Ok(Status::Succeed)
}

/// Returns whether a VM entry would take the EPT pointer.
fn is_valid(pointer: u64, capability: &Capability) -> bool {
    const RESERVED: u64 = 0xf80;
    let eptp = EptPointer(pointer);
    let is_type_there = match eptp.memory_type() {
        0 => capability.ept_vpid.contains(EptVpidCapability::UNCACHEABLE),
        6 => capability.ept_vpid.contains(EptVpidCapability::WRITE_BACK),
        _ => false,
    };
    is_type_there
        && eptp.walk_length() == 4
        && (!eptp.has_accessed_dirty() || capability.ept_vpid.contains(EptVpidCapability::ACCESSED_DIRTY))
        && pointer & RESERVED == 0
        && pointer >> capability.physical_address_bits == 0
}
