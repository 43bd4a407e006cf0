//! Exits of L2 on the machine.

use super::by_l0;
use super::reflect::ExitFacts;
use super::route::{self, Route};
use super::to_l1;
use crate::exit::{Action, Exit, dispatch, machine_check};
use crate::memory::guest_physical::GuestPhysical;
use crate::smp::percpu::{self, PerCpu};
use crate::smp::watched_events::WatchedEvents;
use crate::vcpu::{RegisterState, Registers};
use crate::vmx::decode;
use crate::vmx::nested::cpu::{self, State};
use crate::vmx::nested::entry::refusal;
use crate::vmx::nested::event::delivery;
use crate::vmx::nested::l2_compartment;
use crate::vmx::nested::l2_vcpu::{self, L2Vcpu, view_of};
use crate::vmx::nested::memory::ept_violation;
use crate::vmx::nested::memory::l2::L2Memory;
use hw::Vmcs;
use hw::bare::Processor;
use x86::vmx::exit_reason::ExitReason;
use x86::vmx::vmcs;

/// Every VM exit of L2 comes here. Most of them are L1's.
pub(in crate::vmx) extern "C" fn handle_l2_exit(registers: &mut Registers) {
    let cpu = percpu::current();
    let Some(mut state) = cpu::of(cpu) else { unreachable!("L2 runs only where there is nesting") };
    let vmcs02 = state.hardware.current();
    let told = ExitReason(vmcs02.read(vmcs::EXIT_REASON));
    let reason = told.without_flags();
    cpu.count_exit(reason.basic());
    cpu.count_nested_exit();
    cpu.runs_again();
    if reason.is_machine_check_in_entry() && machine_check::is_context_intact(&Processor) {
        // The entry failed as a whole: it is made again, with the machine check before it.
        return cpu.give_machine_check();
    }
    // Asked before whose the exit is: VMCS02 holds the compartment's state and controls, and L1 is told nothing of
    // them.
    if cpu.is_in_compartment() {
        return l2_compartment::handle(&mut view_of(state, registers, cpu, true), cpu, reason);
    }
    if reason.is_entry_failure() {
        let (state, action) = entry_failed(state, registers, cpu, reason);
        return to_l1::exited(state, registers, cpu, action);
    }
    // Only past the failures: after one of these the hardware has not entered, and what the entry was to bring waits on.
    state.nested.pending.left_hardware();
    let route = route::route(&vmcs02, &state.nested.vmcs12, registers, reason, &GuestPhysical);
    // L1's exits leave here, as they are most of all and need no view of L2 for the hypervisor's handlers.
    if route == Route::L1 && watched_cause(cpu, reason).is_none() {
        let (state, action) = to_l1::reflect(state, registers, cpu, told);
        return to_l1::exited(state, registers, cpu, action);
    }
    handle_rarely(state, registers, cpu, reason, route);
}

#[inline(never)]
fn handle_rarely(
    state: State,
    registers: &mut Registers,
    cpu: &'static PerCpu,
    reason: ExitReason,
    route: Route,
) {
    if matches!(route, Route::NmiWindow | Route::Trap) {
        return delivery::boundary(state, registers, cpu, reason);
    }
    let may_ask = matches!(route, Route::HypappThenL1 | Route::SecondLevel);
    let mut vcpu = view_of(state, registers, cpu, may_ask);
    let action = match route {
        Route::HypappThenL1 => hypapp(&mut vcpu, cpu, reason),
        Route::Nmi => {
            cpu.note_nmi();
            Some(Action::Resume)
        }
        Route::SecondLevel if ept_violation::is_nested(cpu) => {
            return ept_violation::handle(&mut vcpu, cpu, reason);
        }
        Route::SecondLevel => {
            decode::decode(&vcpu, reason).map(|exit| dispatch::dispatch(&mut vcpu, cpu, exit))
        }
        Route::L0 | Route::Linked => return handle_by_l0(&mut vcpu, cpu, reason, route),
        Route::L1 => {
            // The hypapp is told, and L1 has its exit all the same.
            if let Some(cause) = watched_cause(cpu, reason) {
                dispatch::dispatch(&mut vcpu, cpu, cause);
            }
            None
        }
        Route::NmiWindow | Route::Trap => None,
    };
    match action {
        Some(action) => ept_violation::conclude(&mut vcpu, cpu, reason, action),
        None => to_l1::reflect_now(registers, cpu),
    }
}

/// Returns what a hypapp is to be told of an exit that L1 asked for too.
#[inline]
fn watched_cause(cpu: &PerCpu, reason: ExitReason) -> Option<Exit> {
    let events = cpu.watched.events();
    if events.is_empty() {
        return None;
    }
    match reason {
        ExitReason::EXTERNAL_INTERRUPT => {
            events.contains(WatchedEvents::EXTERNAL_INTERRUPT).then_some(Exit::ExternalInterrupt)
        }
        ExitReason::INTERRUPT_WINDOW => {
            events.contains(WatchedEvents::INTERRUPT_WINDOW).then_some(Exit::InterruptWindow)
        }
        _ => None,
    }
}

/// What the hypervisor does in L2's stead. Where L1's tables forbid an access on the way, L1 gets the violation.
fn handle_by_l0(vcpu: &mut L2Vcpu<'_>, cpu: &'static PerCpu, reason: ExitReason, route: Route) {
    let memory = L2Memory::of(cpu);
    let count = vcpu.registers().rcx();
    let action = match route {
        Route::Linked => by_l0::access_linked_vmcs(vcpu, cpu, reason, &memory),
        _ => by_l0::handle(vcpu, cpu, reason, &memory),
    };
    // Before L1 may be told of an access that was denied: that walks L1's tables again, and goes by the index in
    // VMCS12.
    memory.keep_log(cpu);
    match (action, memory.denied()) {
        (Some(Action::Inject(_)), Some(denied)) if vcpu.registers().rcx() == count => {
            ept_violation::deny(vcpu, cpu, reason, denied);
        }
        // A string instruction that has come some way exits again where it stopped.
        (Some(Action::Inject(_)), Some(_)) => l2_vcpu::apply(vcpu, cpu, reason, Action::Resume),
        (Some(action), _) => l2_vcpu::apply(vcpu, cpu, reason, action),
        (None, _) => to_l1::reflect_now(vcpu.registers_mut(), cpu),
    }
}

/// CPUID and VMCALL: the hypapp's, or L1's.
fn hypapp(vcpu: &mut L2Vcpu<'_>, cpu: &PerCpu, reason: ExitReason) -> Option<Action> {
    use crate::hypapp::HypercallAnswer;
    if reason == ExitReason::VMCALL {
        return match cpu.machine.hypapp.hypercall(vcpu) {
            HypercallAnswer::Handled => Some(Action::Advance),
            HypercallAnswer::Moved => Some(Action::Resume),
            HypercallAnswer::Chain => None,
        };
    }
    let (leaf, subleaf) = (low(vcpu.registers().rax()), low(vcpu.registers().rcx()));
    let result = cpu.machine.hypapp.cpuid(vcpu, leaf, subleaf)?;
    let registers = vcpu.registers_mut();
    registers.set_rax(result.eax.into());
    registers.set_rbx(result.ebx.into());
    registers.set_rcx(result.ecx.into());
    registers.set_rdx(result.edx.into());
    Some(Action::Advance)
}

#[expect(clippy::cast_possible_truncation, reason = "CPUID looks at the lower halves")]
const fn low(register: u64) -> u32 {
    register as u32
}

/// The hardware found guest state that it does not take: L1's entry fails, or an L2 that ran before ends.
fn entry_failed(
    state: State,
    registers: &mut Registers,
    cpu: &PerCpu,
    reason: ExitReason,
) -> (State, Action) {
    if !state.nested.pending.is_new() {
        log::warn!("cpu={} the processor refuses state of a guest's guest that ran before", cpu.index);
        return to_l1::leave_refused(state, registers, cpu, &refusal::SHUTDOWN);
    }
    let facts = ExitFacts::new(reason, state.hardware.current().read(vmcs::EXIT_QUALIFICATION));
    to_l1::give_up(state, registers, cpu, &facts)
}
