//! VMPTRLD (SDM, "VMPTRLD-Load Pointer to Virtual-Machine Control Structure").

use super::{Hardware, L1, Status, operand, page};
use crate::memory::guest::GuestMemory;
use crate::vmx::nested::Nested;
use crate::vmx::nested::vmcs12::SHADOW_VMCS;
use hw::Vmcs;
use x86::event::Event;
use x86::vmx::instruction_error::InstructionError;

/// Makes a VMCS current: its fields come into the hypervisor's memory, those of the one before go to its page.
pub(super) fn execute<V: Vmcs, M: GuestMemory, H: Hardware>(
    nested: &mut Nested,
    l1: &mut L1<'_, '_, V, M, H>,
) -> Result<Status, Event> {
    let pointer = operand::read_pointer(l1.vcpu, l1.memory)?;
    let Some(region) = page(pointer, &l1.facts.capability) else {
        return Ok(Status::Fail(InstructionError::VMPTRLD_ADDRESS));
    };
    if region == nested.vmxon_pointer {
        return Ok(Status::Fail(InstructionError::VMPTRLD_VMXON_POINTER));
    }
    let mut revision = [0; 4];
    // Memory that L1 does not have reads as an empty bus.
    let is_there = l1.memory.read(region, &mut revision).is_ok();
    let revision = u32::from_le_bytes(revision);
    let is_shadow = revision & SHADOW_VMCS != 0;
    if !is_there
        || revision & !SHADOW_VMCS != l1.facts.capability.revision()
        || is_shadow && !l1.facts.capability.has_shadowing()
    {
        return Ok(Status::Fail(InstructionError::VMPTRLD_REVISION));
    }
    // After the checks of the page, which a processor makes each time. The page itself is older than what the
    // hypervisor has of it, and is not read again.
    if nested.current == Some(region) {
        return Ok(Status::Succeed);
    }
    // The one before first: there is room for one.
    nested.write_back_current(l1.memory, l1.hardware);
    if nested.load_current(l1.memory, region, is_shadow).is_err() {
        return Ok(Status::Fail(InstructionError::VMPTRLD_REVISION));
    }
    l1.hardware.current_changed(Some(&nested.vmcs12));
    Ok(Status::Succeed)
}
