//! Exits of L2 on the machine.

use super::area_msrs;
use super::cpu::{self, NestedCpu, State};
use super::l2_memory::{self, L2Memory};
use super::lack::{Lack, Note};
use super::raise::{self, Raised};
use super::reflect::{self, ExitFacts, Left};
use super::route::{self, Route};
use super::translation;
use super::view::L2View;
use super::vmcs12::Abort;
use super::{Operation, entry, nmi, own, pages, second_level, signals, world};
use crate::exit::{Action, dispatch};
use crate::machine;
use crate::memory::guest_physical::GuestPhysical;
use crate::smp::percpu::{self, PerCpu};
use crate::vcpu::{Registers, Vcpu};
use crate::vmx::vcpu::VmxVcpu;
use crate::vmx::{decode, run};
use core::sync::atomic::Ordering;
use hw::Vmcs;
use hw::bare::Processor;
use hw::bare::vmx::CurrentVmcs;
use x86::address::HostPhysAddr;
use x86::vmx::ept::EptPointer;
use x86::vmx::exit_reason::ExitReason;
use x86::vmx::interruption::InterruptionType;
use x86::vmx::vmcs;

/// The VMCS of L2, for the hypervisor's own handlers.
pub(super) type L2Vcpu<'a> = VmxVcpu<'a, L2View<CurrentVmcs>>;

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
    if cpu.is_in_world() {
        return world::handle(&mut view_of(state, registers, cpu, true), cpu, reason);
    }
    if reason.is_entry_failure() {
        let (state, action) = entry_failed(state, registers, cpu, reason);
        drop(state);
        return end(action);
    }
    state.nested.pending.left_hardware();
    let route = route::route(&vmcs02, &state.nested.vmcs12, registers, reason, &GuestPhysical);
    if route == Route::L1 {
        let (state, action) = reflect(state, registers, cpu, told);
        return left(state, registers, cpu, action);
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
        return signals::boundary(state, registers, cpu, reason);
    }
    let may_ask = matches!(route, Route::HypappThenL1 | Route::SecondLevel);
    let mut vcpu = view_of(state, registers, cpu, may_ask);
    let action = match route {
        Route::HypappThenL1 => hypapp(&mut vcpu, reason),
        Route::Nmi => {
            cpu.note_nmi();
            Some(Action::Resume)
        }
        Route::SecondLevel if second_level::is_nested(cpu) => {
            return second_level::handle(&mut vcpu, cpu, reason);
        }
        Route::SecondLevel => {
            decode::decode(&vcpu, reason).map(|exit| dispatch::dispatch(&mut vcpu, cpu, exit))
        }
        Route::Own | Route::Linked => return handle_own(&mut vcpu, cpu, reason, route),
        Route::L1 | Route::NmiWindow | Route::Trap => None,
    };
    match action {
        Some(action) => conclude(&mut vcpu, cpu, reason, action),
        None => reflect_now(registers, cpu),
    }
}

/// What the hypervisor does in L2's stead. Where L1's tables forbid an access on the way, L1 gets the violation.
fn handle_own(vcpu: &mut L2Vcpu<'_>, cpu: &'static PerCpu, reason: ExitReason, route: Route) {
    let memory = L2Memory::of(cpu);
    let count = vcpu.registers().rcx();
    let action = match route {
        Route::Linked => own::access_linked_vmcs(vcpu, cpu, reason, &memory),
        _ => own::handle(vcpu, cpu, reason, &memory),
    };
    memory.keep_log(cpu);
    match (action, memory.denied()) {
        (Some(Action::Inject(_)), Some(denied)) if vcpu.registers().rcx() == count => {
            second_level::deny(vcpu, cpu, reason, denied);
        }
        // A string instruction that has come some way exits again where it stopped.
        (Some(Action::Inject(_)), Some(_)) => apply(vcpu, cpu, reason, Action::Resume),
        (Some(action), _) => apply(vcpu, cpu, reason, action),
        (None, _) => reflect_now(vcpu.registers_mut(), cpu),
    }
}

/// L2 for the hypervisor's own handlers and for hypapps, which may ask for things that need the state; with `may_ask`
/// for L1's help too, which [`conclude`] asks for.
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

/// Carries out what was decided for L2, unless L1 has to be asked for something first.
pub(super) fn conclude(vcpu: &mut L2Vcpu<'_>, cpu: &'static PerCpu, reason: ExitReason, action: Action) {
    match l2_memory::take_asked(cpu) {
        None => apply(vcpu, cpu, reason, action),
        Some(Lack::Fault(event)) => apply(vcpu, cpu, reason, Action::Inject(event)),
        Some(Lack::SecondLevel(access)) => second_level::ask(vcpu, cpu, reason, access, None),
    }
}

/// CPUID and VMCALL: the hypapp's, or L1's.
fn hypapp(vcpu: &mut L2Vcpu<'_>, reason: ExitReason) -> Option<Action> {
    use crate::hypapp::Answer;
    if reason == ExitReason::VMCALL {
        return match machine::hypapp().hypercall(vcpu) {
            Answer::Handled => Some(Action::Advance),
            Answer::Moved => Some(Action::Resume),
            Answer::Chain => None,
        };
    }
    let (leaf, subleaf) = (low(vcpu.registers().rax()), low(vcpu.registers().rcx()));
    let result = machine::hypapp().cpuid(vcpu, leaf, subleaf)?;
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

/// Carries out what one of the hypervisor's handlers decided for L2.
pub(super) fn apply(vcpu: &mut L2Vcpu<'_>, cpu: &'static PerCpu, reason: ExitReason, action: Action) {
    let Action::Inject(event) = action else { return run::apply(vcpu, reason, action) };
    let combined = run::combined(vcpu, reason, event);
    let Some(state) = cpu::of(cpu) else { return };
    let facts = match raise::raise(&state.nested.vmcs12, combined) {
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

/// Hands the exit that the hardware tells of to L1.
pub(super) fn reflect_now(registers: &mut Registers, cpu: &PerCpu) {
    let Some(state) = cpu::of(cpu) else { return };
    let told = ExitReason(state.hardware.current().read(vmcs::EXIT_REASON));
    let (state, action) = reflect(state, registers, cpu, told);
    left(state, registers, cpu, action);
}

/// Hands the exit that the hardware tells of to L1, with its flags.
fn reflect(mut state: State, registers: &mut Registers, cpu: &PerCpu, told: ExitReason) -> (State, Action) {
    reflect::save_exit(&state.hardware.current(), &mut state.nested.vmcs12, told);
    leave(state, registers, cpu, false)
}

/// Hands an exit to L1 that the hardware does not tell of as it is.
pub(super) fn reflect_facts(
    mut state: State,
    registers: &mut Registers,
    cpu: &PerCpu,
    facts: &ExitFacts,
) -> (State, Action) {
    let vmcs02 = state.hardware.current();
    reflect::save_exit(&vmcs02, &mut state.nested.vmcs12, facts.reason);
    reflect::save_facts(&mut state.nested.vmcs12, facts);
    leave(state, registers, cpu, facts.interruption.kind() == InterruptionType::NMI)
}

/// From L2 to L1, which VMCS12 tells of the exit.
pub(super) fn leave(
    mut state: State,
    registers: &mut Registers,
    cpu: &PerCpu,
    is_nmi: bool,
) -> (State, Action) {
    cpu.count_reflected_exit();
    let mut vmcs02 = state.hardware.current();
    reflect::save_guest_state(&vmcs02, &mut state.nested.vmcs12);
    if let Some(facts) = cpu::facts() {
        let stored;
        (state, stored) = area_msrs::store_on_exit(state, registers, cpu, facts);
        if stored.is_err() {
            state.hardware.select_l1();
            let action = entry::abort(&state.nested, Abort::GuestMsrs);
            return (state, action);
        }
    }
    let NestedCpu { nested, hardware, .. } = &mut *state;
    let mut left = Left::of(&vmcs02, &nested.vmcs12);
    if cpu.loads_cet() {
        left.ssp = Some(vmcs02.read(vmcs::GUEST_SSP));
    }
    let blocking = nested.pending.blocking_after_exit(nmi::is_blocked(&nested.vmcs12), is_nmi);
    nmi::set_blocked(&mut nested.vmcs12, blocking.saved);
    nested.pending.withdraw(&mut vmcs02);
    hardware.barrier.raise(&Processor);
    let mut l1 = VmxVcpu::new(hardware.return_to_l1(&nested.vmcs12), registers, cpu.index);
    entry::load_host(state, &mut l1, cpu, &left, blocking.l1)
}

/// The hardware found guest state that it does not take.
fn entry_failed(
    state: State,
    registers: &mut Registers,
    cpu: &PerCpu,
    reason: ExitReason,
) -> (State, Action) {
    let facts = ExitFacts::new(reason, state.hardware.current().read(vmcs::EXIT_QUALIFICATION));
    give_up(state, registers, cpu, &facts)
}

/// The entry fails, and L1 is told. The VMCS of L2 is current, and the hardware did not enter.
pub(super) fn give_up(
    mut state: State,
    registers: &mut Registers,
    cpu: &PerCpu,
    facts: &ExitFacts,
) -> (State, Action) {
    let NestedCpu { nested, hardware, .. } = &mut *state;
    let mut vmcs02 = hardware.current();
    let left = Left::of(&vmcs02, &nested.vmcs12);
    nested.revert_entry();
    nested.pending.withdraw(&mut vmcs02);
    let mut l1 = VmxVcpu::new(hardware.select_l1(), registers, cpu.index);
    // L1's was not replaced.
    let is_blocked = nmi::is_blocked(&l1.vmcs);
    entry::fail(state, &mut l1, cpu, facts, &left, is_blocked)
}

/// What the hypervisor changed meanwhile reaches L2 before it goes on: addresses, and the view of this CPU. A world
/// has tables of its own, and L2 follows when it is back from it.
pub(in crate::vmx) fn follow(cpu: &PerCpu) {
    if cpu.is_in_world() {
        return;
    }
    let Some(mut state) = cpu::of(cpu) else { return };
    let NestedCpu { nested, hardware, .. } = &mut *state;
    if nested.operation == Operation::NonRoot {
        let mut vmcs02 = hardware.current();
        pages::follow(&mut vmcs02, &nested.vmcs12, hardware);
        translation::set_tables(&mut vmcs02, &nested.vmcs12, cpu);
    }
}

/// Runs L1 on `cpu` on the tables under `root`; what L2 runs on follows before it goes on. Returns whether L2
/// runs: else the VMCS of L1 is current.
pub(in crate::vmx) fn use_second_level(cpu: &PerCpu, root: HostPhysAddr) -> bool {
    let Some(state) = cpu::of(cpu) else { return false };
    if state.nested.operation != Operation::NonRoot {
        return false;
    }
    state.hardware.select_l1().write(vmcs::EPT_POINTER, EptPointer::new(root).0);
    state.hardware.select_l2();
    cpu.flush.store(true, Ordering::SeqCst);
    cpu.demand_attention();
    true
}

/// Whether L2 runs on `cpu`, which executes this.
pub(in crate::vmx) fn is_l2(cpu: &PerCpu) -> bool {
    cpu::of(cpu).is_some_and(|state| state.nested.operation == Operation::NonRoot)
}

/// Whether the guest of `cpu`, which executes this, is in VMX operation.
pub(in crate::vmx) fn is_in_operation(cpu: &PerCpu) -> bool {
    cpu::of(cpu).is_some_and(|state| state.nested.operation != Operation::Off)
}

/// An exit was handed to L1, whose VMCS is current: the hypapp is told, and `action` carried out.
pub(super) fn left(state: State, registers: &mut Registers, cpu: &PerCpu, action: Action) {
    let vmcs01 = state.hardware.current();
    // A hypapp may ask for things that need the state.
    drop(state);
    machine::hypapp().nested_exit(&mut VmxVcpu::new(vmcs01, registers, cpu.index));
    end(action);
}

/// Carries out what is left of an exit that was handed to L1: nothing, or the end of the guest.
pub(super) fn end(action: Action) {
    if let Action::Reset(cause) = action {
        crate::reset::end_guest(cause);
    }
}
