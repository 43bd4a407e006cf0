//! Operands of VMX instructions (SDM, "Information for VM Exits Due to Instruction Execution").

use crate::memory::guest::{GuestMemory, GuestView, Intent, Privilege, segmentation};
use crate::vcpu::{CodeSize, Vcpu};
use crate::vmx::vcpu::VmxVcpu;
use hw::Vmcs;
use x86::address::GuestLinearAddr;
use x86::event::Event;
use x86::vmx::instruction_information::InstructionInformation;
use x86::vmx::vmcs;

/// Encoding of RSP, which lives in the VMCS.
const RSP: u8 = 4;

/// Returns the instruction that exited.
pub(super) fn information<V: Vmcs>(vcpu: &VmxVcpu<'_, V>) -> InstructionInformation {
    InstructionInformation(vcpu.vmcs.read(vmcs::EXIT_INSTRUCTION_INFORMATION))
}

/// Returns the number of bytes of a register operand: 8 in 64-bit mode, 4 elsewhere.
pub(super) fn register_bytes<V: Vcpu>(vcpu: &V) -> usize {
    if vcpu.code_size() == CodeSize::Bits64 { 8 } else { 4 }
}

/// Returns a general-purpose register, as wide as the mode has it.
pub(super) fn read_register<V: Vcpu>(vcpu: &V, register: u8) -> u64 {
    let value = full_register(vcpu, register);
    if register_bytes(vcpu) == 8 { value } else { value & 0xffff_ffff }
}

/// Sets a general-purpose register; outside 64-bit mode its lower half, the upper one cleared.
pub(super) fn write_register<V: Vcpu>(vcpu: &mut V, register: u8, value: u64) {
    let value = if register_bytes(vcpu) == 8 { value } else { value & 0xffff_ffff };
    match register {
        RSP => vcpu.set_rsp(value),
        _ => vcpu.registers_mut().0[usize::from(register & 0xf)] = value,
    }
}

/// Reads the memory operand.
pub(super) fn read<V: Vmcs, M: GuestMemory, const N: usize>(
    vcpu: &VmxVcpu<'_, V>,
    memory: &M,
) -> Result<[u8; N], Event> {
    let address = linear(vcpu, N, Intent::Read)?;
    let mut bytes = [0; N];
    GuestView::new(vcpu, memory).read(address, &mut bytes, Privilege::Supervisor)?;
    Ok(bytes)
}

/// Reads the memory operand of 8 bytes that names a VMCS or the VMXON region.
pub(super) fn read_pointer<V: Vmcs, M: GuestMemory>(vcpu: &VmxVcpu<'_, V>, memory: &M) -> Result<u64, Event> {
    read(vcpu, memory).map(u64::from_le_bytes)
}

/// Writes the memory operand.
pub(super) fn write<V: Vmcs, M: GuestMemory>(
    vcpu: &VmxVcpu<'_, V>,
    memory: &M,
    bytes: &[u8],
) -> Result<(), Event> {
    let address = linear(vcpu, bytes.len(), Intent::Write)?;
    GuestView::new(vcpu, memory).write(address, bytes, Privilege::Supervisor)
}

/// Returns the linear address of the memory operand. The exit qualification holds the displacement; where the operand
/// is relative to RIP, the sum of both.
fn linear<V: Vmcs>(vcpu: &VmxVcpu<'_, V>, length: usize, intent: Intent) -> Result<GuestLinearAddr, Event> {
    let information = information(vcpu);
    let base = information.base().map_or(0, |register| full_register(vcpu, register));
    let index = information.index().map_or(0, |register| full_register(vcpu, register));
    let offset = vcpu
        .vmcs
        .read(vmcs::EXIT_QUALIFICATION)
        .wrapping_add(base)
        .wrapping_add(index << information.scaling());
    let offset = offset & u64::MAX >> (64 - information.address_bits());
    segmentation::linear(vcpu, information.segment(), offset, length as u64, intent)
}

/// Returns the linear address of the memory operand, which segmentation allows.
pub(in super::super) fn address<V: Vmcs>(vcpu: &VmxVcpu<'_, V>) -> u64 {
    linear(vcpu, 1, Intent::Read).map_or(0, GuestLinearAddr::get)
}

fn full_register<V: Vcpu>(vcpu: &V, register: u8) -> u64 {
    match register {
        RSP => vcpu.rsp(),
        _ => vcpu.registers().0[usize::from(register & 0xf)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vcpu::fake::FakeVcpu;

    const VALUE: u64 = 0x1122_3344_5566_7788;

    #[test]
    fn a_register_is_as_wide_as_the_mode_has_it() {
        for (vcpu, bytes, value) in
            [(FakeVcpu::long_mode(), 8, VALUE), (FakeVcpu::protected_mode(), 4, VALUE & 0xffff_ffff)]
        {
            assert_eq!(register_bytes(&vcpu), bytes);
            for register in 0..16 {
                let mut read = FakeVcpu { rsp: VALUE, ..vcpu.clone() };
                read.registers.0 = [VALUE; 16];
                assert_eq!(read_register(&read, register), value, "{register}");
                let mut written = FakeVcpu { rsp: !0, ..vcpu.clone() };
                written.registers.0 = [!0; 16];
                write_register(&mut written, register, VALUE);
                let mut expected = FakeVcpu { rsp: !0, ..vcpu.clone() };
                expected.registers.0 = [!0; 16];
                match register {
                    4 => expected.rsp = value,
                    _ => expected.registers.0[usize::from(register)] = value,
                }
                assert_eq!(written, expected, "{register}");
            }
        }
    }
}
