//! L2's processor, for handlers of the hypervisor's own.

use super::cpu::{self, State};
use super::event::l0_event::{self, Raised};
use super::exit::reflect::ExitFacts;
use super::exit::to_l1::{exited, reflect_facts};
use super::l2_vmcs::L2View;
use super::memory::missing_page::Note;
use super::vmcs12::controls::L1Controls;
use crate::exit::Action;
use crate::smp::percpu::PerCpu;
use crate::vcpu::{EventState, RegisterState, Registers};
use crate::vmx::apply as l1;
use crate::vmx::vcpu::VmxVcpu;
use hw::Vmcs;
use hw::bare::vmx::CurrentVmcs;
use x86::event::Event;
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
    state.missing_page = Note::of_event(may_ask);
    let l1_owns = state.nested.vmcs12.read(vmcs::CR0_MASK);
    let mut vcpu = VmxVcpu::new(L2View::new(state.hardware.current(), l1_owns), registers, cpu.index);
    vcpu.fixed_cr0 = Some(L1Controls::of(&state.nested.vmcs12).fixed_cr0());
    vcpu
}

/// Carries out what one of the hypervisor's handlers decided for L2.
pub(super) fn apply(vcpu: &mut L2Vcpu<'_>, cpu: &'static PerCpu, reason: ExitReason, action: Action) {
    match action {
        Action::Inject(event) => inject(vcpu, cpu, reason, event),
        Action::Advance => {
            vcpu.advance();
            trap_behind(vcpu, cpu);
        }
        Action::AdvanceBy(length) => {
            vcpu.advance_by(length.into());
            trap_behind(vcpu, cpu);
        }
        _ => l1::apply(vcpu, reason, action),
    }
}

fn inject(vcpu: &mut L2Vcpu<'_>, cpu: &'static PerCpu, reason: ExitReason, event: Event) {
    let combined = l1::combined(vcpu, reason, event);
    let Some(state) = cpu::of(cpu) else { return };
    match l0_event::raise(&state.nested.vmcs12, combined) {
        Raised::Inject(event) => {
            drop(state);
            vcpu.inject(event);
        }
        Raised::Exit(facts) => leave(state, vcpu, cpu, &facts),
    }
}

/// The hypervisor has carried out an instruction of L2's. Where L1 wants the monitor trap flag, its exit is due now: the
/// hardware would make one behind the *next* instruction (SDM, "Monitor Trap Flag").
fn trap_behind(vcpu: &mut L2Vcpu<'_>, cpu: &'static PerCpu) {
    let Some(state) = cpu::of(cpu) else { return };
    if state.nested.pending.is_trap_due(&vcpu.vmcs) {
        leave(state, vcpu, cpu, &ExitFacts::new(ExitReason::MONITOR_TRAP_FLAG, 0));
    }
}

/// L2 leaves for L1, which is told `facts`.
fn leave(state: State, vcpu: &mut L2Vcpu<'_>, cpu: &'static PerCpu, facts: &ExitFacts) {
    let registers = vcpu.registers_mut();
    let (state, action) = reflect_facts(state, registers, cpu, facts);
    exited(state, registers, cpu, action);
}
