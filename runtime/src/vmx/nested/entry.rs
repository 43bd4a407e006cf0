//! VMX instructions of L1 on the machine, and the entry into L2.

use super::area_msrs::{self, GuestMsrs};
use super::capability::Capability;
use super::checks::EntryFailure;
use super::cpu::{self, NestedCpu};
use super::instruction::{self, Completion, L1, Status};
use super::merge::{self, Inherited, Wanted};
use super::msr_area::{MsrArea, Unusable};
use super::reflect::{self, ExitFacts, Left};
use super::translation::set_translation;
use super::view::L2View;
use super::vmcs12;
use super::{Facts, Nested, Operation, exit, pages};
use crate::exit::{Action, ResetCause};
use crate::machine;
use crate::memory::guest_physical::GuestPhysical;
use crate::smp::percpu::{self, PerCpu};
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
            let action = enter(&mut state, cpu, facts, vcpu);
            if state.nested.operation == Operation::NonRoot {
                entered(state, vcpu.registers_mut(), cpu);
            }
            action
        }
    }
}

/// L2 is about to run, its VMCS is current: the hypapp is told.
fn entered(state: exit::State, registers: &mut Registers, cpu: &PerCpu) {
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
fn enter(state: &mut NestedCpu, cpu: &PerCpu, facts: &Facts, l1: &mut VmxVcpu<'_, CurrentVmcs>) -> Action {
    let NestedCpu { nested, hardware, .. } = state;
    let inherited = Inherited::of(l1);
    let pdptes = match nested.check_guest_state(facts, l1, &GuestPhysical, hardware) {
        Ok(pdptes) => pdptes,
        Err(failure) => {
            let action = fail(nested, l1, &ExitFacts::from(failure), &Left::from(&inherited));
            hardware.return_to_l1(&nested.vmcs12);
            return action;
        }
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
    let area = MsrArea::of_entry(vmcs12, &facts.capability);
    if area.count != 0
        && let Err(Unusable { entry }) = load_msrs(area, vmcs02, l1.registers_mut(), cpu, facts)
    {
        nested.revert_entry();
        hardware.select_l1();
        let failure = ExitFacts::from(EntryFailure::MsrLoading { entry });
        let action = fail(nested, l1, &failure, &Left::from(&inherited));
        hardware.return_to_l1(&nested.vmcs12);
        return action;
    }
    if ActivityState(vmcs12.read(vmcs::GUEST_ACTIVITY)) == ActivityState::WAIT_FOR_SIPI {
        cpu.is_running.store(false, Ordering::SeqCst);
    }
    nested.operation = Operation::NonRoot;
    if core::mem::take(&mut nested.has_waiting_init) {
        cpu.give_init();
    }
    Action::Resume
}

/// Loads the MSRs of an area for the guest of `vmcs`, which is current.
fn load_msrs(
    area: MsrArea,
    vmcs: CurrentVmcs,
    registers: &mut Registers,
    cpu: &PerCpu,
    facts: &Facts,
) -> Result<(), Unusable> {
    let mut vcpu = VmxVcpu::new(vmcs, registers, cpu.index);
    let mut msrs = GuestMsrs { vcpu: &mut vcpu, cpu, facts };
    area.load_on_entry(&GuestPhysical, &mut msrs)
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
    nested: &mut Nested,
    l1: &mut VmxVcpu<'_, CurrentVmcs>,
    facts: &ExitFacts,
    left: &Left,
) -> Action {
    reflect::save_facts(&mut nested.vmcs12, facts);
    load_host(nested, l1, left)
}

/// L1 goes on with its host state. The VMCS of L1 is current.
pub(super) fn load_host(nested: &mut Nested, l1: &mut VmxVcpu<'_, CurrentVmcs>, left: &Left) -> Action {
    nested.operation = Operation::Root;
    if reflect::load_host_state(l1, &nested.vmcs12, left, &GuestPhysical).is_err() {
        return abort(nested, vmcs12::Abort::HostPdptes);
    }
    if Wanted::of(&nested.vmcs12).exit.contains(ExitControls::LOAD_PERF_GLOBAL_CTRL) {
        area_msrs::load_perf_global_ctrl(nested.vmcs12.read(vmcs::HOST_PERF_GLOBAL_CTRL));
    }
    let Some(facts) = cpu::facts() else { return Action::Resume };
    let area = MsrArea::of_exit_load(&nested.vmcs12, &facts.capability);
    if area.count != 0 {
        let mut msrs = GuestMsrs { vcpu: l1, cpu: percpu::current(), facts };
        if area.load_on_exit(&GuestPhysical, &mut msrs).is_err() {
            return abort(nested, vmcs12::Abort::HostMsrs);
        }
    }
    Action::Resume
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
