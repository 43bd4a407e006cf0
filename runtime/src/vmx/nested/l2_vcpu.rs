//! L2's processor, for handlers of the hypervisor's own.

use super::cpu::{self, State};
use super::event::l0_event::{self, Raised};
use super::exit::to_l1::{left, reflect_facts};
use super::l2_vmcs::L2View;
use super::memory::missing_page::Note;
use crate::exit::Action;
use crate::smp::percpu::PerCpu;
use crate::vcpu::{Registers, Vcpu};
use crate::vmx::apply as l1;
use crate::vmx::vcpu::VmxVcpu;
use hw::Vmcs;
use hw::bare::vmx::CurrentVmcs;
use x86::vmx::exit_reason::ExitReason;
use x86::vmx::vmcs;

/// The VMCS of L2, for the hypervisor's own handlers.
pub(super) type L2Vcpu<'a> = VmxVcpu<'a, L2View<CurrentVmcs>>;

/// L2 for the hypervisor's own handlers and for hypapps, which may ask for things that need the state; with `may_ask`
/// for L1's help too, which [`conclude`](super::memory::ept_violation::conclude) asks for.
pub(super) fn view_of<'a>(
    mut state: State,
    registers: &'a mut Registers,
    cpu: &PerCpu,
    may_ask: bool,
) -> L2Vcpu<'a> {
    state.lack = Note::of_event(may_ask);
    let l1_owns = state.nested.vmcs12.read(vmcs::CR0_MASK);
    VmxVcpu::new(L2View::new(state.hardware.current(), l1_owns), registers, cpu.index)
}

/// Carries out what one of the hypervisor's handlers decided for L2.
pub(super) fn apply(vcpu: &mut L2Vcpu<'_>, cpu: &'static PerCpu, reason: ExitReason, action: Action) {
    let Action::Inject(event) = action else { return l1::apply(vcpu, reason, action) };
    let combined = l1::combined(vcpu, reason, event);
    let Some(state) = cpu::of(cpu) else { return };
    let facts = match l0_event::raise(&state.nested.vmcs12, combined) {
        Raised::Inject(event) => {
            drop(state);
            return vcpu.inject(event);
        }
        Raised::Exit(facts) => facts,
    };
    let registers = vcpu.registers_mut();
    let (state, action) = reflect_facts(state, registers, cpu, &facts);
    left(state, registers, cpu, action);
}
