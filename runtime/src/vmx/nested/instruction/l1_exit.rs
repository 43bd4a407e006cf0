//! Exits of L1 for VMX: its instructions, and RDMSR of what tells of VMX.

use super::{Completion, L1};
use crate::exit::Action;
use crate::memory::guest_physical::GuestPhysical;
use crate::smp::percpu::PerCpu;
use crate::vcpu::RegisterState;
use crate::vmx::nested::Operation;
use crate::vmx::nested::capability::Capability;
use crate::vmx::nested::cpu::{self, NestedCpu};
use crate::vmx::nested::entry::enter;
use crate::vmx::vcpu::VmxVcpu;
use hw::Vmcs;
use hw::bare::vmx::CurrentVmcs;
use x86::event::Event;
use x86::msr::Msr;
use x86::vmx::exit_reason::ExitReason;

/// Carries out the VMX instruction of L1 that exited for `reason`. Where it enters L2, the VMCS of L2 is current
/// afterwards.
#[inline(never)]
pub(in crate::vmx) fn instruction(
    vcpu: &mut VmxVcpu<'_, CurrentVmcs>,
    cpu: &PerCpu,
    reason: ExitReason,
) -> Action {
    let (Some(mut state), Some(facts)) = (cpu::of(cpu), cpu::facts()) else {
        return Action::Inject(Event::UD);
    };
    let NestedCpu { nested, hardware, .. } = &mut *state;
    let mut l1 = L1 { vcpu, memory: &GuestPhysical, facts, hardware };
    match super::execute(nested, &mut l1, reason) {
        Completion::L1(action) => action,
        Completion::Enter => {
            let (state, action) = enter::enter(state, cpu, facts, vcpu);
            if state.nested.operation == Operation::NonRoot {
                enter::entered(state, vcpu.registers_mut(), cpu);
            }
            action
        }
    }
}

/// RDMSR of an MSR that the core does not have, which has decided on `refusal`.
pub(in crate::vmx) fn read_msr<V: Vmcs>(vcpu: &mut VmxVcpu<'_, V>, refusal: Action) -> Action {
    let msr = Msr(vcpu.registers().ecx());
    if !Capability::covers(msr) {
        return refusal;
    }
    match cpu::facts().map(|facts| facts.capability.read(msr)) {
        Some(Ok(value)) => {
            vcpu.registers_mut().set_edx_eax(value);
            Action::Advance
        }
        _ => refusal,
    }
}
