//! VMX instructions of L1 on the machine, and the entry into L2.

use super::area_msrs;
use super::capability::Capability;
use super::checks::EntryFailure;
use super::cpu::{self, NestedCpu, State};
use super::instruction::{self, Completion, L1, Status};
use super::lack::Note;
use super::merge::{self, Inherited, Wanted};
use super::msr_area::Unusable;
use super::reflect::{self, ExitFacts, Left};
use super::translation::set_translation;
use super::view::L2View;
use super::vmcs12;
use super::{Facts, Nested, Operation, pages};
use crate::exit::{Action, ResetCause};
use crate::machine;
use crate::memory::guest_physical::GuestPhysical;
use crate::smp::percpu::PerCpu;
use crate::vcpu::{Registers, Vcpu};
use crate::vmx::inject;
use crate::vmx::vcpu::VmxVcpu;
use core::sync::atomic::Ordering;
use hw::Vmcs;
use hw::bare::vmx::CurrentVmcs;
use x86::event::Event;
use x86::msr::Msr;
use x86::vmx::controls::{EntryControls, ExitControls, PrimaryControls};
use x86::vmx::exit_reason::ExitReason;
use x86::vmx::instruction_error::InstructionError;
use x86::vmx::interruption::ActivityState;
use x86::vmx::vmcs;

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
    match instruction::execute(nested, &mut l1, reason) {
        Completion::L1(action) => {
            if !nested.is_on() && core::mem::take(&mut nested.has_waiting_init) {
                cpu.give_init();
            }
            action
        }
        Completion::Enter => {
            let (state, action) = enter(state, cpu, facts, vcpu);
            if state.nested.operation == Operation::NonRoot {
                entered(state, vcpu.registers_mut(), cpu);
            }
            action
        }
    }
}

/// L2 is about to run, its VMCS is current: the hypapp is told.
fn entered(mut state: State, registers: &mut Registers, cpu: &PerCpu) {
    state.lack = Note::of_event(false);
    let view = L2View::new(state.hardware.current(), state.nested.vmcs12.read(vmcs::CR0_MASK));
    // A hypapp may ask for things that need the state.
    drop(state);
    machine::hypapp().nested_entry(&mut VmxVcpu::new(view, registers, cpu.index));
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

/// Enters L2, or has the entry fail.
fn enter(
    mut state: State,
    cpu: &PerCpu,
    facts: &Facts,
    l1: &mut VmxVcpu<'_, CurrentVmcs>,
) -> (State, Action) {
    let NestedCpu { nested, hardware, .. } = &mut *state;
    let inherited = Inherited::of(l1);
    let left = Left::from(&inherited);
    let pdptes = match nested.check_guest_state(facts, l1, &GuestPhysical, hardware) {
        Ok(pdptes) => pdptes,
        Err(failure) => return fail(state, l1, cpu, &ExitFacts::from(failure), &left),
    };
    nested.begin_entry();
    keep_nmi(l1, cpu);
    let vmcs12 = &mut nested.vmcs12;
    let mut vmcs02 = hardware.select_l2();
    pages::set_pages(&mut vmcs02, vmcs12, hardware);
    merge::enter(&mut vmcs02, vmcs12, &facts.capability, &hardware.own, &inherited);
    if let Some(pdptes) = pdptes {
        merge::set_pdptes(&mut vmcs02, pdptes);
    }
    set_translation(&mut vmcs02, vmcs12, &mut hardware.vpids, cpu);
    if Wanted::of(vmcs12).entry.contains(EntryControls::LOAD_PERF_GLOBAL_CTRL) {
        area_msrs::load_perf_global_ctrl(vmcs12.read(vmcs::GUEST_PERF_GLOBAL_CTRL));
    }
    // What comes to a hypapp from here on is L2's.
    nested.operation = Operation::NonRoot;
    let (mut state, loaded) = area_msrs::load_on_entry(state, l1.registers_mut(), cpu, facts);
    let NestedCpu { nested, hardware, .. } = &mut *state;
    if let Err(Unusable { entry }) = loaded {
        nested.revert_entry();
        hardware.select_l1();
        return fail(state, l1, cpu, &ExitFacts::from(EntryFailure::MsrLoading { entry }), &left);
    }
    if ActivityState(nested.vmcs12.read(vmcs::GUEST_ACTIVITY)) == ActivityState::WAIT_FOR_SIPI {
        cpu.is_running.store(false, Ordering::SeqCst);
    }
    if core::mem::take(&mut nested.has_waiting_init) {
        cpu.give_init();
    }
    (state, Action::Resume)
}

/// An NMI that waits for L1 waits for L2 from now on, by other rules.
fn keep_nmi(l1: &mut VmxVcpu<'_, CurrentVmcs>, cpu: &PerCpu) {
    let controls = PrimaryControls::from_bits_retain(l1.vmcs.read(vmcs::PRIMARY_CONTROLS));
    if controls.contains(PrimaryControls::NMI_WINDOW_EXITING) {
        inject::set_nmi_window(l1, false);
        cpu.give_guest_nmi();
    }
}

/// Ends an entry that failed: an exit that saves no guest state (SDM, "VM-Entry Failures During or After Loading
/// Guest State"). The VMCS of L1 is current.
pub(super) fn fail(
    mut state: State,
    l1: &mut VmxVcpu<'_, CurrentVmcs>,
    cpu: &PerCpu,
    facts: &ExitFacts,
    left: &Left,
) -> (State, Action) {
    let NestedCpu { nested, hardware, .. } = &mut *state;
    reflect::save_facts(&mut nested.vmcs12, facts);
    hardware.return_to_l1(&nested.vmcs12);
    load_host(state, l1, cpu, left)
}

/// L1 goes on with its host state. The VMCS of L1 is current.
pub(super) fn load_host(
    mut state: State,
    l1: &mut VmxVcpu<'_, CurrentVmcs>,
    cpu: &PerCpu,
    left: &Left,
) -> (State, Action) {
    let nested = &mut state.nested;
    nested.operation = Operation::Root;
    if reflect::load_host_state(l1, &nested.vmcs12, left, &GuestPhysical).is_err() {
        let action = abort(nested, vmcs12::Abort::HostPdptes);
        return (state, action);
    }
    if Wanted::of(&nested.vmcs12).exit.contains(ExitControls::LOAD_PERF_GLOBAL_CTRL) {
        area_msrs::load_perf_global_ctrl(nested.vmcs12.read(vmcs::HOST_PERF_GLOBAL_CTRL));
    }
    let Some(facts) = cpu::facts() else { return (state, Action::Resume) };
    let (state, loaded) = area_msrs::load_on_exit(state, l1, cpu, facts);
    let action = match loaded {
        Ok(()) => Action::Resume,
        Err(_) => abort(&state.nested, vmcs12::Abort::HostMsrs),
    };
    (state, action)
}

/// A VMX abort: the processor shuts down (SDM, "VMX Aborts").
pub(super) fn abort(nested: &Nested, cause: vmcs12::Abort) -> Action {
    if let Some(region) = nested.current {
        vmcs12::set_abort_indicator(&GuestPhysical, region, cause);
    }
    Action::Reset(ResetCause::TripleFault)
}

/// The processor refused the merged VMCS before it loaded any of it. What L1 asked for is to blame: VMfail.
pub(in crate::vmx) fn refused(registers: &mut Registers, cpu: &PerCpu, error: u32) -> bool {
    let Some(mut state) = cpu::of(cpu) else { return false };
    let NestedCpu { nested, hardware, .. } = &mut *state;
    // Of a world L1 knows nothing: there the fault is ours.
    if nested.operation != Operation::NonRoot || cpu.is_in_world() {
        return false;
    }
    log::warn!("cpu={} the processor refuses an entry that L1's checks let pass: error {error}", cpu.index);
    nested.operation = Operation::Root;
    nested.revert_entry();
    let mut l1 = VmxVcpu::new(hardware.select_l1(), registers, cpu.index);
    runs_again(cpu);
    instruction::conclude(nested, &mut l1, Status::Fail(InstructionError(error)));
    l1.advance();
    true
}

/// L2 waits for a start-up IPI no more. While it did, this CPU was not called to drop translations.
pub(super) fn runs_again(cpu: &PerCpu) {
    cpu.is_running.store(true, Ordering::SeqCst);
    cpu.flush.store(true, Ordering::SeqCst);
    cpu.demand_attention();
}
