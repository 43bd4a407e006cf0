//! VMLAUNCH and VMRESUME up to the checks of the guest's state (SDM, "VMLAUNCH/VMRESUME-Launch/Resume Managed
//! Virtual Machine"; "Basic VM-Entry Checks").

use super::{Hardware, L1, Status};
use crate::memory::guest::GuestMemory;
use crate::vmx::nested::Nested;
use crate::vmx::nested::vmcs12::LaunchState;
use hw::Vmcs;
use x86::event::Event;
use x86::vmx::instruction_error::InstructionError;
use x86::vmx::interruption::Interruptibility;

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Instruction {
    /// VMLAUNCH.
    Launch,
    /// VMRESUME.
    Resume,
}

/// Checks what is checked before the entry is committed to.
pub(super) fn execute<V: Vmcs, M: GuestMemory, H: Hardware>(
    nested: &mut Nested,
    l1: &mut L1<'_, '_, V, M, H>,
    instruction: Instruction,
) -> Result<Status, Event> {
    if nested.current.is_none() || nested.vmcs12.is_shadow {
        return Ok(Status::FailInvalid);
    }
    // In the manual's order: an instruction that breaks two rules ends with the error of the first.
    if l1.vcpu.interruptibility().contains(Interruptibility::BLOCKING_BY_MOV_SS) {
        return Ok(Status::Fail(InstructionError::ENTRY_MOV_SS));
    }
    match (instruction, nested.vmcs12.launch_state) {
        (Instruction::Launch, LaunchState::Launched) => {
            return Ok(Status::Fail(InstructionError::VMLAUNCH_NOT_CLEAR));
        }
        (Instruction::Resume, LaunchState::Clear) => {
            return Ok(Status::Fail(InstructionError::VMRESUME_NOT_LAUNCHED));
        }
        _ => (),
    }
    // Before the checks, which look at what L1 wrote without an exit as well.
    nested.fetch_shadow(l1.hardware);
    Ok(nested.check(l1.facts, l1.vcpu, l1.memory).map_or_else(Status::from, |()| Status::Enter))
}
