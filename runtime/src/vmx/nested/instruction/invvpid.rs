//! INVVPID (SDM, "INVVPID-Invalidate Translations Based on VPID").

use super::{Hardware, L1, Status, VpidScope, operand};
use crate::memory::guest::GuestMemory;
use crate::memory::guest::canonical::is_canonical;
use crate::vcpu::PagingState;
use hw::Vmcs;
use x86::address::GuestLinearAddr;
use x86::event::Event;
use x86::vmx::capability::EptVpidCapability;
use x86::vmx::instruction_error::InstructionError;

/// Forgets translations of linear addresses of L2.
pub(super) fn execute<V: Vmcs, M: GuestMemory, H: Hardware>(
    l1: &mut L1<'_, '_, V, M, H>,
) -> Result<Status, Event> {
    const INVALID: Status = Status::Fail(InstructionError::INVALID_INVALIDATION);
    let capability = l1.facts.capability.ept_vpid;
    if !capability.contains(EptVpidCapability::INVVPID) {
        return Err(Event::UD);
    }
    let kind = operand::read_register(l1.vcpu, operand::information(l1.vcpu).register2());
    let wanted = match kind {
        0 => EptVpidCapability::INVVPID_ADDRESS,
        1 => EptVpidCapability::INVVPID_SINGLE,
        2 => EptVpidCapability::INVVPID_ALL,
        3 => EptVpidCapability::INVVPID_RETAINING_GLOBALS,
        _ => return Ok(INVALID),
    };
    if !capability.contains(wanted) {
        return Ok(INVALID);
    }
    let descriptor = u128::from_le_bytes(operand::read(l1.vcpu, l1.memory)?);
    #[expect(clippy::cast_possible_truncation, reason = "the fields of the descriptor")]
    let (vpid, reserved, address) = (descriptor as u16, descriptor as u64 >> 16, (descriptor >> 64) as u64);
    if reserved != 0 || kind != 2 && vpid == 0 || kind == 0 && !is_canonical(address, l1.vcpu.cr4()) {
        return Ok(INVALID);
    }
    l1.hardware.invalidate_vpid(match kind {
        0 => VpidScope::Address(vpid, GuestLinearAddr::new(address)),
        1 => VpidScope::Single(vpid),
        2 => VpidScope::All,
        _ => VpidScope::SingleRetainingGlobals(vpid),
    });
    Ok(Status::Succeed)
}
