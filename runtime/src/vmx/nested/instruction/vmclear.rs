//! VMCLEAR (SDM, "VMCLEAR-Clear Virtual-Machine Control Structure").

use super::{Hardware, L1, Status, operand, page};
use crate::memory::guest::GuestMemory;
use crate::vmx::nested::Nested;
use crate::vmx::nested::vmcs12::{self, LaunchState};
use hw::Vmcs;
use x86::event::Event;
use x86::vmx::instruction_error::InstructionError;

/// Writes a VMCS back to its page and makes its launch state clear.
pub(super) fn execute<V: Vmcs, M: GuestMemory, H: Hardware>(
    nested: &mut Nested,
    l1: &mut L1<'_, '_, V, M, H>,
) -> Result<Status, Event> {
    let pointer = operand::read_pointer(l1.vcpu, l1.memory)?;
    let Some(region) = page(pointer, &l1.facts.capability) else {
        return Ok(Status::Fail(InstructionError::VMCLEAR_ADDRESS));
    };
    if region == nested.vmxon_pointer {
        return Ok(Status::Fail(InstructionError::VMCLEAR_VMXON_POINTER));
    }
    if nested.current == Some(region) {
        // Before the page is written, where the launch state is kept.
        nested.vmcs12.launch_state = LaunchState::Clear;
        nested.write_back_current(l1.memory, l1.hardware);
    } else {
        // An active VMCS that is not current lies in its page already.
        vmcs12::clear(l1.memory, region);
    }
    Ok(Status::Succeed)
}
