//! Exits of L2 on the machine.

use super::area_msrs;
use super::cpu::{self, NestedCpu, State};
use super::l2_memory::{self, L2Memory};
use super::lack::{Lack, Note};
use super::merge::Wanted;
use super::reflect::{self, ExitFacts, Left};
use super::route::{self, Route};
use super::translation;
use super::view::L2View;
use super::vmcs12::Abort;
use super::{Operation, entry, nmi, own, pages, second_level, world};
use crate::exit::{Action, ResetCause, dispatch};
use crate::machine;
use crate::memory::guest_physical::GuestPhysical;
use crate::smp::percpu::{self, PerCpu};
use crate::vcpu::{Registers, Vcpu};
use crate::vmx::vcpu::VmxVcpu;
use crate::vmx::{decode, inject, run};
use core::sync::atomic::Ordering;
use hw::Vmcs;
use hw::bare::Processor;
use hw::bare::vmx::CurrentVmcs;
use x86::address::HostPhysAddr;
use x86::event::{Event, Vector};
use x86::vmx::controls::{PrimaryControls, SecondaryControls};
use x86::vmx::ept::EptPointer;
use x86::vmx::exit_reason::ExitReason;
use x86::vmx::interruption::{Interruption, InterruptionType};
use x86::vmx::vmcs;

/// The VMCS of L2, for handlers of the hypervisor's own.
pub(super) type L2Vcpu<'a> = VmxVcpu<'a, L2View<CurrentVmcs>>;

/// Every VM exit of L2 comes here. Most of them are L1's.
pub(in crate::vmx) extern "C" fn handle_l2_exit(registers: &mut Registers) {
    let cpu = percpu::current();
    let Some(state) = cpu::of(cpu) else { unreachable!("L2 runs only where there is nesting") };
    let vmcs02 = state.hardware.current();
    let reason = ExitReason(vmcs02.read(vmcs::EXIT_REASON));
    cpu.count_exit(reason.basic());
    cpu.count_nested_exit();
    if cpu.is_in_world() {
        return world::handle(&mut view_of(state, registers, cpu, true), cpu, reason);
    }
    if !cpu.is_running.load(Ordering::Relaxed) {
        entry::runs_again(cpu);
    }
    let route = route::route(&vmcs02, &state.nested.vmcs12, registers, reason, &GuestPhysical);
    if route == Route::L1 && !reason.is_entry_failure() {
        let (state, action) = reflect(state, registers, cpu, reason);
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
    if reason.is_entry_failure() {
        let (state, action) = entry_failed(state, registers, cpu, reason);
        drop(state);
        return end(action);
    }
    let may_ask = matches!(route, Route::HypappThenL1 | Route::SecondLevel);
    let mut vcpu = view_of(state, registers, cpu, may_ask);
    let action = match route {
        Route::HypappThenL1 => hypapp(&mut vcpu, reason),
        Route::Nmi => {
            cpu.note_nmi();
            Some(Action::Resume)
        }
        Route::NmiWindow => {
            inject::set_nmi_window(&mut vcpu, false);
            inject::nmi(&mut vcpu);
            Some(Action::Resume)
        }
        Route::EventTaken => {
            nmi::set_trap(&mut vcpu.vmcs, false);
            cpu.give_guest_nmi();
            Some(Action::Resume)
        }
        Route::SecondLevel if second_level::is_nested(cpu) => {
            return second_level::handle(&mut vcpu, cpu, reason);
        }
        Route::SecondLevel => {
            decode::decode(&vcpu, reason).map(|exit| dispatch::dispatch(&mut vcpu, cpu, exit))
        }
        Route::Own | Route::Linked => return handle_own(&mut vcpu, cpu, reason, route),
        Route::L1 => None,
    };
    match action {
        Some(action) => conclude(&mut vcpu, cpu, reason, action),
        None => reflect_now(registers, cpu, reason),
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
    match (action, memory.denied()) {
        (Some(Action::Inject(_)), Some(denied)) if vcpu.registers().rcx() == count => {
            second_level::deny(vcpu, cpu, reason, denied);
        }
        // A string instruction that has come some way exits again where it stopped.
        (Some(Action::Inject(_)), Some(_)) => apply(vcpu, cpu, reason, Action::Resume),
        (Some(action), _) => apply(vcpu, cpu, reason, action),
        (None, _) => reflect_now(vcpu.registers_mut(), cpu, reason),
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

/// Carries out what a handler of the hypervisor's decided for L2.
pub(super) fn apply(vcpu: &mut L2Vcpu<'_>, cpu: &'static PerCpu, reason: ExitReason, action: Action) {
    let Action::Inject(event) = action else { return run::apply(vcpu, reason, action) };
    let event = match run::combined(vcpu, reason, event) {
        Ok(event) => event,
        Err(inject::Shutdown) => return end(Action::Reset(ResetCause::TripleFault)),
    };
    let Some(facts) = wanted_exception(cpu, event) else { return vcpu.inject(event) };
    let Some(state) = cpu::of(cpu) else { return };
    let registers = vcpu.registers_mut();
    let (state, action) = reflect_facts(state, registers, cpu, &facts);
    left(state, registers, cpu, action);
}

/// The exit that an exception of L2 is where L1 intercepts it.
fn wanted_exception(cpu: &PerCpu, event: Event) -> Option<ExitFacts> {
    let (vector, error_code, qualification) = match event {
        Event::Exception { vector, error_code } => (vector, error_code, 0),
        Event::PageFault { address, error_code } => (Vector::PF, Some(error_code), address),
        _ => return None,
    };
    let state = cpu::of(cpu)?;
    let is_wanted = route::wants_exception(&state.nested.vmcs12, vector, || error_code.unwrap_or_default());
    is_wanted.then(|| ExitFacts {
        reason: ExitReason::EXCEPTION_OR_NMI,
        qualification,
        interruption: Interruption::new(vector.0, InterruptionType::HARDWARE_EXCEPTION, error_code.is_some()),
        error_code: error_code.unwrap_or_default(),
    })
}

fn reflect_now(registers: &mut Registers, cpu: &'static PerCpu, reason: ExitReason) {
    let Some(state) = cpu::of(cpu) else { return };
    let (state, action) = reflect(state, registers, cpu, reason);
    left(state, registers, cpu, action);
}

/// Hands the exit that the hardware tells of to L1.
fn reflect(mut state: State, registers: &mut Registers, cpu: &PerCpu, reason: ExitReason) -> (State, Action) {
    reflect::save_exit(&state.hardware.current(), &mut state.nested.vmcs12, reason);
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

/// From L2 to L1.
fn leave(mut state: State, registers: &mut Registers, cpu: &PerCpu, is_nmi: bool) -> (State, Action) {
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
    let left = Left::of(&vmcs02, &nested.vmcs12);
    let blocking = nmi::after_exit(
        nmi::Mode::of(&nested.vmcs12),
        nmi::is_blocked(&nested.vmcs12),
        nested.was_nmi_blocked,
        is_nmi,
    );
    nmi::set_blocked(&mut nested.vmcs12, blocking.saved);
    let waits = nested.take_waiting_nmi(&mut vmcs02);
    if !Wanted::of(&nested.vmcs12).secondary.contains(SecondaryControls::ENABLE_VPID) {
        translation::drop_own_translations();
    }
    hardware.barrier.raise(&Processor);
    let mut l1 = VmxVcpu::new(hardware.return_to_l1(&nested.vmcs12), registers, cpu.index);
    let (state, action) = entry::load_host(state, &mut l1, cpu, &left);
    if blocking.l1 {
        l1.set_nmi_blocking(true);
    }
    if waits {
        inject::nmi(&mut l1);
    }
    (state, action)
}

/// The hardware found guest state that it does not take.
fn entry_failed(
    mut state: State,
    registers: &mut Registers,
    cpu: &PerCpu,
    reason: ExitReason,
) -> (State, Action) {
    let NestedCpu { nested, hardware, .. } = &mut *state;
    let vmcs02 = hardware.current();
    let facts = ExitFacts::new(reason, vmcs02.read(vmcs::EXIT_QUALIFICATION));
    let left = Left::of(&vmcs02, &nested.vmcs12);
    nested.revert_entry();
    let mut l1 = VmxVcpu::new(hardware.select_l1(), registers, cpu.index);
    entry::fail(state, &mut l1, cpu, &facts, &left)
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
        pages::set_pages(&mut vmcs02, &nested.vmcs12, hardware);
        translation::set_tables(&mut vmcs02, &nested.vmcs12, cpu);
    }
}

/// Has L1 on `cpu` run on the tables under `root`, and what L2 runs on follow before it goes on. Tells whether L2
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

/// An INIT signal came: L2 exits for it; in VMX root operation it waits. Tells whether that was all.
pub(in crate::vmx) fn init_arrived(registers: &mut Registers, cpu: &'static PerCpu) -> bool {
    let Some(mut state) = cpu::of(cpu) else { return false };
    match state.nested.operation {
        Operation::Off => return false,
        Operation::Root => {
            state.nested.has_waiting_init = true;
            return true;
        }
        Operation::NonRoot => (),
    }
    let facts = ExitFacts::new(ExitReason::INIT, 0);
    let vmcs02 = state.hardware.current();
    let event = Interruption(vmcs02.read(vmcs::ENTRY_INTERRUPTION_INFORMATION));
    let error_code = vmcs02.read(vmcs::ENTRY_EXCEPTION_ERROR_CODE);
    let length = vmcs02.read(vmcs::ENTRY_INSTRUCTION_LENGTH);
    let (mut state, action) = reflect_facts(state, registers, cpu, &facts);
    let NestedCpu { nested, hardware, .. } = &mut *state;
    reflect::save_undelivered(&mut nested.vmcs12, event, error_code, length);
    hardware.return_to_l1(&nested.vmcs12);
    left(state, registers, cpu, action);
    true
}

/// Whether L2 runs on `cpu`, which executes this.
pub(in crate::vmx) fn is_l2(cpu: &PerCpu) -> bool {
    cpu::of(cpu).is_some_and(|state| state.nested.operation == Operation::NonRoot)
}

/// An NMI of L1's arrived while L2 runs.
pub(in crate::vmx) fn nmi_arrived(registers: &mut Registers, cpu: &'static PerCpu) {
    let Some(mut state) = cpu::of(cpu) else { return };
    let mode = nmi::Mode::of(&state.nested.vmcs12);
    let mut vmcs02 = state.hardware.current();
    match nmi::arrival(mode, state.nested.was_nmi_blocked) {
        nmi::Arrival::Inject => {
            inject::nmi(&mut VmxVcpu::new(vmcs02, registers, cpu.index));
            return;
        }
        nmi::Arrival::Keep => {
            state.nested.has_waiting_nmi = true;
            return;
        }
        nmi::Arrival::Exit => (),
    }
    if Interruption(vmcs02.read(vmcs::ENTRY_INTERRUPTION_INFORMATION)).is_valid() {
        // The event comes first: the exit is at the boundary behind it.
        nmi::set_trap(&mut vmcs02, true);
        return;
    }
    let has_window = Wanted::of(&state.nested.vmcs12).primary.contains(PrimaryControls::NMI_WINDOW_EXITING);
    let facts = if has_window && !nmi::is_blocked(&vmcs02) {
        // The window comes before the NMI, which L1 takes then.
        state.nested.has_waiting_nmi = true;
        ExitFacts::new(ExitReason::NMI_WINDOW, 0)
    } else {
        ExitFacts {
            interruption: Interruption::new(Vector::NMI.0, InterruptionType::NMI, false),
            ..ExitFacts::new(ExitReason::EXCEPTION_OR_NMI, 0)
        }
    };
    let (state, action) = reflect_facts(state, registers, cpu, &facts);
    left(state, registers, cpu, action);
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
