//! VMREAD and VMWRITE (SDM, "VMREAD-Read Field from Virtual-Machine Control Structure"; "VMWRITE-Write Field
//! to Virtual-Machine Control Structure").

use super::{Hardware, L1, Status, operand};
use crate::memory::guest::GuestMemory;
use crate::vmx::nested::Nested;
use crate::vmx::nested::capability::Capability;
use crate::vmx::nested::vmcs12::fields::Access;
use crate::vmx::nested::vmcs12::shadowing;
use crate::vmx::vcpu::VmxVcpu;
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
    let Some(access) = field(l1.vcpu, &l1.facts.capability) else {
        return Ok(Status::Fail(InstructionError::UNSUPPORTED_FIELD));
    };
    nested.fetch_newest(access, l1.hardware);
    deliver(l1.vcpu, l1.memory, nested.vmcs12.value(access))?;
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
    let value = source(l1.vcpu, l1.memory)?;
    let access = match writable_field(l1.vcpu, &l1.facts.capability) {
        Ok(access) => access,
        Err(error) => return Ok(Status::Fail(error)),
    };
    // What the VMCS of L2 has newer comes first: fetched later, it would undo this write.
    nested.fetch_newest(access, l1.hardware);
    if shadowing::is_read(access) {
        // What exits tell, and the access rights of CS: read without an exit, written with one.
        nested.fetch_shadow(l1.hardware);
        nested.vmcs12.set_value(access, value);
        // Writes the shadow VMCS as a whole, from which L1's own writes had therefore to be fetched before.
        l1.hardware.current_changed(Some(&nested.vmcs12));
    } else {
        nested.vmcs12.set_value(access, value);
    }
    Ok(Status::Succeed)
}

/// Returns the field that the instruction names, where L1's processor has it.
pub(super) fn field<V: Vmcs>(vcpu: &VmxVcpu<'_, V>, capability: &Capability) -> Option<Access> {
    let encoding = operand::read_register(vcpu, operand::information(vcpu).register2());
    capability.field(encoding)
}

/// Returns the field that VMWRITE names, where it may write there.
pub(super) fn writable_field<V: Vmcs>(
    vcpu: &VmxVcpu<'_, V>,
    capability: &Capability,
) -> Result<Access, InstructionError> {
    let access = field(vcpu, capability).ok_or(InstructionError::UNSUPPORTED_FIELD)?;
    if is_read_only(access, capability) { Err(InstructionError::READ_ONLY_FIELD) } else { Ok(access) }
}

/// Puts what VMREAD read where the instruction says.
pub(super) fn deliver<V: Vmcs, M: GuestMemory>(
    vcpu: &mut VmxVcpu<'_, V>,
    memory: &M,
    value: u64,
) -> Result<(), Event> {
    let information = operand::information(vcpu);
    if information.is_register() {
        operand::write_register(vcpu, information.register1(), value);
        return Ok(());
    }
    let bytes = operand::register_bytes(vcpu);
    operand::write(vcpu, memory, &value.to_le_bytes()[..bytes])
}

/// Returns what VMWRITE is to write.
pub(super) fn source<V: Vmcs, M: GuestMemory>(vcpu: &VmxVcpu<'_, V>, memory: &M) -> Result<u64, Event> {
    let information = operand::information(vcpu);
    if information.is_register() {
        Ok(operand::read_register(vcpu, information.register1()))
    } else if operand::register_bytes(vcpu) == 8 {
        operand::read(vcpu, memory).map(u64::from_le_bytes)
    } else {
        operand::read(vcpu, memory).map(|bytes| u32::from_le_bytes(bytes).into())
    }
}

/// VM-exit information, unless IA32_VMX_MISC lets VMWRITE reach it.
fn is_read_only(access: Access, capability: &Capability) -> bool {
    access.info().group() == Group::ExitInformation && !VmxMisc(capability.misc).writes_exit_information()
}
