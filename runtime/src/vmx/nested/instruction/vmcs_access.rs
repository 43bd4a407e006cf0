//! VMREAD and VMWRITE (SDM, "VMREAD-Read Field from Virtual-Machine Control Structure"; "VMWRITE-Write Field
//! to Virtual-Machine Control Structure").

use super::{Hardware, L1, Status, operand};
use crate::memory::guest::GuestMemory;
use crate::vmx::nested::Nested;
use crate::vmx::nested::capability::Capability;
use crate::vmx::nested::fields::{self, Access};
use crate::vmx::nested::shadow;
use hw::Vmcs;
use x86::event::Event;
use x86::vmx::capability::VmxMisc;
use x86::vmx::instruction_error::InstructionError;
use x86::vmx::vmcs::Group;

/// VMREAD.
pub(super) fn read<V: Vmcs, M: GuestMemory, H: Hardware>(
    nested: &mut Nested,
    l1: &mut L1<'_, '_, V, M, H>,
) -> Result<Status, Event> {
    if nested.current.is_none() {
        return Ok(Status::FailInvalid);
    }
    let information = operand::information(l1.vcpu);
    let encoding = operand::read_register(l1.vcpu, information.register2());
    let Some(access) = fields::access(encoding, &l1.facts.capability) else {
        return Ok(Status::Fail(InstructionError::UNSUPPORTED_FIELD));
    };
    nested.make_current(access, l1.hardware);
    let value = nested.vmcs12.value(access);
    if information.is_register() {
        operand::write_register(l1.vcpu, information.register1(), value);
    } else {
        let bytes = operand::register_bytes(l1.vcpu);
        operand::write(l1.vcpu, l1.memory, &value.to_le_bytes()[..bytes])?;
    }
    Ok(Status::Succeed)
}

/// VMWRITE. The source is read before the field is looked at.
pub(super) fn write<V: Vmcs, M: GuestMemory, H: Hardware>(
    nested: &mut Nested,
    l1: &mut L1<'_, '_, V, M, H>,
) -> Result<Status, Event> {
    if nested.current.is_none() {
        return Ok(Status::FailInvalid);
    }
    let information = operand::information(l1.vcpu);
    let value = if information.is_register() {
        operand::read_register(l1.vcpu, information.register1())
    } else if operand::register_bytes(l1.vcpu) == 8 {
        u64::from_le_bytes(operand::read(l1.vcpu, l1.memory)?)
    } else {
        u32::from_le_bytes(operand::read(l1.vcpu, l1.memory)?).into()
    };
    let encoding = operand::read_register(l1.vcpu, information.register2());
    let Some(access) = fields::access(encoding, &l1.facts.capability) else {
        return Ok(Status::Fail(InstructionError::UNSUPPORTED_FIELD));
    };
    if is_read_only(access, &l1.facts.capability) {
        return Ok(Status::Fail(InstructionError::READ_ONLY_FIELD));
    }
    nested.make_current(access, l1.hardware);
    if shadow::is_read(access) {
        // VM-exit information: read without an exit, written with one.
        nested.fetch_shadow(l1.hardware);
        nested.vmcs12.set_value(access, value);
        l1.hardware.current_changed(Some(&nested.vmcs12));
    } else {
        nested.vmcs12.set_value(access, value);
    }
    Ok(Status::Succeed)
}

/// VM-exit information, unless IA32_VMX_MISC lets VMWRITE reach it.
fn is_read_only(access: Access, capability: &Capability) -> bool {
    access.info().group() == Group::ExitInformation && !VmxMisc(capability.misc).writes_exit_information()
}
