//! VMX instructions of L1 (SDM, "VMX Instruction Reference"): one a file, in the manual's order of checks.

mod enter;
mod invept;
mod invvpid;
pub(in crate::vmx) mod l1_exit;
pub(super) mod linked;
pub(super) mod operand;
mod vmclear;
mod vmcs_access;
mod vmptrld;
mod vmptrst;
mod vmxoff;
mod vmxon;

#[cfg(test)]
mod tests;

use super::capability::Capability;
use super::entry::checks;
use super::vmcs12::Vmcs12;
use super::{Facts, Nested};
use crate::exit::Action;
use crate::memory::guest::GuestMemory;
use crate::vcpu::{CodeSize, RegisterState, Vcpu};
use crate::vmx::vcpu::VmxVcpu;
use hw::Vmcs;
use x86::address::{GuestLinearAddr, GuestPhysAddr};
use x86::cr::{Cr0, Cr4, Efer, Rflags};
use x86::event::Event;
use x86::vmx::exit_reason::ExitReason;
use x86::vmx::instruction_error::InstructionError;

/// What an instruction of L1 works on.
#[derive(Debug)]
pub(super) struct L1<'a, 'r, V, M, H> {
    /// L1's processor.
    pub(super) vcpu: &'a mut VmxVcpu<'r, V>,
    /// L1's memory.
    pub(super) memory: &'a M,
    /// What L1's processor can do.
    pub(super) facts: &'a Facts,
    /// What the hardware keeps for nesting.
    pub(super) hardware: &'a mut H,
}

/// What the hardware keeps for nesting, seen from the instructions.
pub(super) trait Hardware {
    /// Brings fields that only the VMCS of L2 has into VMCS12.
    fn fetch_guest_state(&mut self, vmcs12: &mut Vmcs12);
    /// Takes over what L1 wrote to the shadow VMCS since.
    fn fetch_shadow(&mut self, vmcs12: &mut Vmcs12);
    /// Forgets translations by L1's tables: under this EPT pointer, or under all.
    fn invalidate_ept(&mut self, ept_pointer: Option<u64>);
    /// Forgets translations of linear addresses of L2.
    fn invalidate_vpid(&mut self, scope: VpidScope);
    /// Chooses which VMCS12 VMREAD and VMWRITE reach without an exit from now on.
    fn current_changed(&mut self, vmcs12: Option<&Vmcs12>);
    /// L1 has left VMX operation: what was derived from its tables serves nobody.
    fn left_operation(&mut self);
}

/// What INVVPID drops (SDM, "INVVPID-Invalidate Translations Based on VPID").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum VpidScope {
    /// One linear address of one VPID.
    Address(u16, GuestLinearAddr),
    /// One VPID.
    Single(u16),
    /// Every VPID but 0.
    All,
    /// One VPID, its global translations excepted.
    SingleRetainingGlobals(u16),
}

/// How an instruction ended without a fault (SDM, "Conventions").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    /// VMsucceed.
    Succeed,
    /// VMfailInvalid.
    FailInvalid,
    /// VMfail: VMfailValid with this number where there is a current VMCS, else VMfailInvalid.
    Fail(InstructionError),
    /// VM entry goes on: the checks of controls and host state have passed.
    Enter,
}

/// What becomes of L1 after an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Completion {
    /// L1 goes on as said.
    L1(Action),
    /// VM entry into L2 goes on.
    Enter,
}

/// Carries out the VMX instruction of L1 that exited for `reason`.
pub(super) fn execute<V: Vmcs, M: GuestMemory, H: Hardware>(
    nested: &mut Nested,
    l1: &mut L1<'_, '_, V, M, H>,
    reason: ExitReason,
) -> Completion {
    let done = match reason {
        ExitReason::VMXON => vmxon::execute(nested, l1),
        _ => check_mode(nested, l1.vcpu).and_then(|()| match reason {
            ExitReason::VMXOFF => vmxoff::execute(nested, l1),
            ExitReason::VMCLEAR => vmclear::execute(nested, l1),
            ExitReason::VMPTRLD => vmptrld::execute(nested, l1),
            ExitReason::VMPTRST => vmptrst::execute(nested, l1),
            ExitReason::VMREAD => vmcs_access::read(nested, l1),
            ExitReason::VMWRITE => vmcs_access::write(nested, l1),
            ExitReason::VMLAUNCH => enter::execute(nested, l1, enter::Instruction::Launch),
            ExitReason::VMRESUME => enter::execute(nested, l1, enter::Instruction::Resume),
            ExitReason::INVEPT => invept::execute(l1),
            ExitReason::INVVPID => invvpid::execute(l1),
            // There is no dual-monitor treatment (SDM, "VMCALL-Call to VM Monitor").
            ExitReason::VMCALL => Ok(Status::Fail(InstructionError::VMCALL_IN_ROOT)),
            _ => Err(Event::UD),
        }),
    };
    match done {
        Ok(Status::Enter) => Completion::Enter,
        Ok(status) => {
            conclude(nested, l1.vcpu, status);
            Completion::L1(Action::Advance)
        }
        Err(event) => Completion::L1(Action::Inject(event)),
    }
}

/// Sets flags and VM-instruction error as an instruction that ended with `status` leaves them.
pub(super) fn conclude<V: Vmcs>(nested: &mut Nested, vcpu: &mut VmxVcpu<'_, V>, status: Status) {
    const STATUS: Rflags =
        Rflags::CF.union(Rflags::PF).union(Rflags::AF).union(Rflags::ZF).union(Rflags::SF).union(Rflags::OF);
    let flag = match status {
        Status::Succeed | Status::Enter => Rflags::empty(),
        Status::Fail(error) if nested.current.is_some() => {
            nested.vmcs12.set_instruction_error(error);
            Rflags::ZF
        }
        Status::FailInvalid | Status::Fail(_) => Rflags::CF,
    };
    let flags = (vcpu.rflags() - STATUS) | flag;
    vcpu.set_rflags(flags);
}

/// Makes the first checks of every instruction but VMXON: VMX operation, mode, privilege.
fn check_mode<V: Vmcs>(nested: &Nested, vcpu: &VmxVcpu<'_, V>) -> Result<(), Event> {
    if !nested.is_on() || !is_mode_right(vcpu) {
        return Err(Event::UD);
    }
    check_privilege(vcpu)
}

fn check_privilege<V: Vcpu>(vcpu: &V) -> Result<(), Event> {
    if vcpu.cpl() == 0 { Ok(()) } else { Err(Event::GP0) }
}

/// Protected mode, not virtual-8086 mode, not compatibility mode.
fn is_mode_right<V: Vcpu>(vcpu: &V) -> bool {
    let is_compatibility_mode = vcpu.efer().contains(Efer::LMA) && vcpu.code_size() != CodeSize::Bits64;
    vcpu.cr0().contains(Cr0::PE) && !vcpu.rflags().contains(Rflags::VM) && !is_compatibility_mode
}

/// VMX operation is enabled.
fn is_enabled<V: Vcpu>(vcpu: &V) -> bool {
    vcpu.cr4().contains(Cr4::VMXE)
}

/// Returns a pointer to a VMCS or VMXON region: aligned, and within the physical-address width.
fn page(pointer: u64, capability: &Capability) -> Option<GuestPhysAddr> {
    let is_page = pointer & 0xfff == 0 && pointer >> capability.physical_address_bits == 0;
    is_page.then_some(GuestPhysAddr::new(pointer))
}

impl From<checks::Failure> for Status {
    fn from(failure: checks::Failure) -> Self {
        Self::Fail(failure.error)
    }
}
