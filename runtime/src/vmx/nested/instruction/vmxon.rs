//! VMXON (SDM, "VMXON-Enter VMX Operation").

use super::{Hardware, L1, Status, check_privilege, is_enabled, is_mode_right, operand, page};
use crate::memory::guest::GuestMemory;
use crate::vcpu::PagingState;
use crate::vmx::nested::Nested;
use crate::vmx::vcpu::{CR0_MASK, CR0_MASK_IN_VMX_OPERATION};
use hw::Vmcs;
use x86::event::Event;
use x86::vmx::instruction_error::InstructionError;
use x86::vmx::vmcs;

/// Enters VMX operation. IA32_FEATURE_CONTROL allows it to every guest, and A20 is never masked: the gate has
/// no effect on processors with VMX (SDM, "Restrictions on VMX Operation").
pub(super) fn execute<V: Vmcs, M: GuestMemory, H: Hardware>(
    nested: &mut Nested,
    l1: &mut L1<'_, '_, V, M, H>,
) -> Result<Status, Event> {
    if !is_mode_right(l1.vcpu) || !is_enabled(l1.vcpu) {
        return Err(Event::UD);
    }
    check_privilege(l1.vcpu)?;
    if nested.is_on() {
        return Ok(Status::Fail(InstructionError::VMXON_IN_ROOT));
    }
    let capability = &l1.facts.capability;
    if !is_fixed(l1.vcpu.cr0().bits(), capability.cr0_fixed)
        || !is_fixed(l1.vcpu.cr4().bits(), capability.cr4_fixed)
    {
        return Err(Event::GP0);
    }
    let pointer = operand::read_pointer(l1.vcpu, l1.memory)?;
    let Some(region) = page(pointer, capability) else { return Ok(Status::FailInvalid) };
    let mut revision = [0; 4];
    // Memory that L1 does not have reads as an empty bus.
    if l1.memory.read(region, &mut revision).is_err() || u32::from_le_bytes(revision) != capability.revision()
    {
        return Ok(Status::FailInvalid);
    }
    nested.switch_on(region);
    l1.vcpu.vmcs.write(vmcs::CR0_MASK, (CR0_MASK | CR0_MASK_IN_VMX_OPERATION).bits());
    let cr0 = l1.vcpu.cr0();
    // Written as it is: L1 reads the bits that are masked from now on from the shadow, which has to hold them.
    l1.vcpu.set_cr0(cr0);
    Ok(Status::Succeed)
}

const fn is_fixed(value: u64, [ones, may_be_ones]: [u64; 2]) -> bool {
    value & ones == ones && value & !may_be_ones == 0
}
