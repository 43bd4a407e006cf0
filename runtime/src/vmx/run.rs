//! What happens between a VM exit and the next VM entry.
//!
//! UNSAFETY: called by VM entry, with the guest's registers where it put them.
#![expect(unsafe_code, reason = "entered from VM entry")]

use super::apply::apply;
use super::bitmaps;
use super::inject;
use super::switch;
use super::vcpu::VmxVcpu;
use super::{cet, decode, nested, observers};
use crate::exit::compartment_exit::Inside;
use crate::exit::{Action, CompartmentExit, Exit, dispatch, machine_check, nmi_source};
use crate::memory::host;
use crate::reset::end_guest;
use crate::smp::percpu::{self, PerCpu};
use crate::smp::{quiesce, shootdown};
use crate::stop;
use crate::vcpu::{EventState, PagingState, RegisterState, Registers};
use core::sync::atomic::Ordering;
use hw::Vmcs;
use hw::bare::Processor;
use hw::bare::vmx::CurrentVmcs;
use x86::event::Event;
use x86::vmx::controls::PrimaryControls;
use x86::vmx::exit_reason::ExitReason;
use x86::vmx::instruction_error::InstructionError;
use x86::vmx::interruption::{ActivityState, Interruption};
use x86::vmx::vmcs;

/// Every VM exit comes here. Causes that a guest may bring about often take the short way.
pub(super) extern "C" fn handle_exit(registers: &mut Registers) {
    let cpu = percpu::current();
    // SAFETY: an exit happened, so this CPU's VMCS is current; host state is not written here.
    let vmcs = unsafe { CurrentVmcs::new() };
    let mut vcpu = VmxVcpu::new(vmcs, registers, cpu.index);
    if cpu.loads_cet() {
        // The entry that was to load this state has been, and the guest may have changed it since.
        cet::stop_loading(&mut vcpu.vmcs);
    }
    let reason = ExitReason(vcpu.vmcs.read(vmcs::EXIT_REASON)).without_flags();
    cpu.count_exit(reason.basic());
    let action = match reason {
        ExitReason::CPUID => dispatch::cpuid(&mut vcpu, cpu),
        ExitReason::VMCALL => dispatch::hypercall(&mut vcpu, cpu),
        ExitReason::RDMSR => {
            let msr = decode::msr(&vcpu);
            if observers::covers(msr) {
                observers::read_msr(&mut vcpu, cpu, msr)
            } else {
                dispatch::read_msr(&mut vcpu, cpu, msr)
            }
        }
        _ => return handle_rarely(&mut vcpu, cpu, reason),
    };
    if action == Action::Advance {
        vcpu.advance();
    } else {
        refuse(&mut vcpu, cpu, reason, action);
    }
}

/// What the core refuses a guest may have by nesting.
#[inline(never)]
fn refuse(vcpu: &mut VmxVcpu<'_, CurrentVmcs>, cpu: &'static PerCpu, reason: ExitReason, action: Action) {
    let action = match (reason, action) {
        (ExitReason::RDMSR, Action::Inject(Event::GP0)) => nested::read_msr(vcpu, action),
        (ExitReason::VMCALL, Action::Inject(Event::UD)) => nested::instruction(vcpu, cpu, reason),
        _ => action,
    };
    apply(vcpu, reason, action);
}

#[inline(never)]
fn handle_rarely(vcpu: &mut VmxVcpu<'_, CurrentVmcs>, cpu: &'static PerCpu, reason: ExitReason) {
    // Before all else: what runs in a compartment is none of the guest's business.
    if cpu.is_in_compartment() && tell_of_compartment(vcpu, cpu, reason) == Inside::Handled {
        return apply(vcpu, reason, Action::Resume);
    }
    if is_nested_instruction(reason) {
        let action = nested::instruction(vcpu, cpu, reason);
        apply(vcpu, reason, action);
        // VMXOFF is over first, as an INIT signal waits for the end of VMX operation.
        if reason == ExitReason::VMXOFF && nested::releases_init(cpu) {
            let action = init(vcpu, cpu);
            apply(vcpu, reason, action);
        }
        return;
    }
    if reason.is_machine_check_in_entry() && machine_check::is_context_intact(&Processor) {
        return cpu.give_machine_check();
    }
    if reason.is_entry_failure()
        && let Some(action) = nested::invalid_state(vcpu, cpu)
    {
        return apply(vcpu, reason, action);
    }
    if reason == ExitReason::MONITOR_TRAP_FLAG {
        // The first instruction behind a start-up IPI has been executed, or an event delivered before a machine check.
        set_monitor_trap(vcpu, false);
        if cpu.has_machine_check() {
            cpu.demand_attention();
        }
        return cpu.is_just_started.store(false, Ordering::Relaxed);
    }
    let cause = if reason.is_entry_failure() { None } else { decode::decode(vcpu, reason) };
    let Some(cause) = cause else { panic!("no control of ours leads to this exit: {}", reason.name()) };
    let action = match cause {
        Exit::Nmi => {
            cpu.note_nmi();
            Action::Resume
        }
        Exit::NmiWindow => {
            inject::nmi_in_window(vcpu);
            Action::Resume
        }
        Exit::Init if nested::init_arrived(vcpu.registers_mut(), cpu) => Action::Resume,
        Exit::Init => init(vcpu, cpu),
        Exit::WriteMsr { msr, value } if observers::covers(msr) => {
            observers::write_msr(vcpu, cpu, msr, value)
        }
        Exit::Startup { .. } => {
            set_monitor_trap(vcpu, bitmaps::has_monitor_trap());
            dispatch::dispatch(vcpu, cpu, cause)
        }
        _ => dispatch::dispatch(vcpu, cpu, cause),
    };
    apply(vcpu, reason, action);
}

/// INIT, outside VMX operation: the processor starts afresh, and neither an NMI nor a machine check waits on.
fn init(vcpu: &mut VmxVcpu<'_, CurrentVmcs>, cpu: &'static PerCpu) -> Action {
    inject::set_nmi_window(vcpu, false);
    set_monitor_trap(vcpu, false);
    // The banks keep what happened.
    let _ = cpu.take_machine_check();
    dispatch::dispatch(vcpu, cpu, Exit::Init)
}

/// Asks for, or no longer asks for, an exit behind the next instruction.
fn set_monitor_trap(vcpu: &mut VmxVcpu<'_, CurrentVmcs>, wanted: bool) {
    switch::primary(&mut vcpu.vmcs, PrimaryControls::MONITOR_TRAP_FLAG, wanted);
}

/// VMX instructions, which a guest executes that is a hypervisor.
fn is_nested_instruction(reason: ExitReason) -> bool {
    matches!(
        reason,
        ExitReason::VMREAD
            | ExitReason::VMWRITE
            | ExitReason::VMRESUME
            | ExitReason::VMLAUNCH
            | ExitReason::VMPTRLD
            | ExitReason::VMPTRST
            | ExitReason::VMCLEAR
            | ExitReason::VMXON
            | ExitReason::VMXOFF
            | ExitReason::INVEPT
            | ExitReason::INVVPID
    )
}

/// An exit from this CPU's compartment.
fn tell_of_compartment(vcpu: &mut VmxVcpu<'_, CurrentVmcs>, cpu: &PerCpu, reason: ExitReason) -> Inside {
    let cause = if reason.is_entry_failure() { None } else { decode::decode(vcpu, reason) };
    cause.map_or(Inside::Chained, |cause| dispatch::in_compartment(vcpu, cpu, cause))
}

/// Looks around before the guest is entered. What private memory left in the processor goes last: nothing that is
/// done afterwards touches any.
pub(super) extern "C" fn attend(registers: &mut Registers) {
    let cpu = percpu::current();
    cpu.crossing.leave();
    look_around(registers, cpu);
    cpu.crossing.end(&Processor, cpu.is_in_compartment());
}

/// The rendezvous, stale translations, the end, NMIs.
fn look_around(registers: &mut Registers, cpu: &'static PerCpu) {
    // Before anything is looked at: whatever comes from here on demands attention anew, and leads back here.
    cpu.clear_attention();
    // First, as all the machine stands still for whoever holds a rendezvous.
    quiesce::join(cpu);
    if stop::is_stopping() {
        stop::stand_still();
    }
    end_guest::attend(cpu);
    // What the translations were derived from has changed, and so has what VMCS02 names.
    if shootdown::finish(cpu) {
        nested::follow(cpu);
    }
    if cpu.is_in_compartment() {
        // The guest's NMIs wait until it is back.
        if nested::called(registers, cpu) {
            return;
        }
        // SAFETY: as in `handle_exit`.
        let vmcs = unsafe { CurrentVmcs::new() };
        let mut vcpu = VmxVcpu::new(vmcs, registers, cpu.index);
        return cpu.machine.hypapp.compartment_exit(&mut vcpu, CompartmentExit::Called);
    }
    if cpu.take_doubt_of_id() {
        host::follow_apic_id(cpu);
    }
    if cpu.take_call() && nmi_source::asks(&Processor, &host::local_apic(), &Processor) {
        cpu.keep_guest_nmi();
    }
    // Machine checks, then INIT, then NMIs, as a processor takes them (SDM, "Priority Among Concurrent Events").
    if cpu.take_machine_check() {
        return machine_check(registers, cpu);
    }
    if cpu.take_guest_init() {
        // Others look around behind it.
        cpu.demand_attention();
        nested::init_arrived(registers, cpu);
        return;
    }
    if cpu.take_guest_nmi() {
        if nested::is_l2(cpu) {
            return nested::nmi_arrived(registers, cpu);
        }
        // SAFETY: as in `handle_exit`.
        let vmcs = unsafe { CurrentVmcs::new() };
        let mut vcpu = VmxVcpu::new(vmcs, registers, cpu.index);
        let activity = ActivityState(vcpu.vmcs.read(vmcs::GUEST_ACTIVITY));
        // A processor that waits for a start-up IPI takes no NMI.
        if activity != ActivityState::WAIT_FOR_SIPI {
            inject::nmi(&mut vcpu);
        }
    }
}

/// A machine check struck the hypervisor on its way, and is the guest's to know: behind an event that the entry delivers,
/// before all else that waits.
fn machine_check(registers: &mut Registers, cpu: &'static PerCpu) {
    if nested::is_l2(cpu) {
        return nested::machine_check_arrived(registers, cpu);
    }
    // SAFETY: as in `handle_exit`.
    let vmcs = unsafe { CurrentVmcs::new() };
    let mut vcpu = VmxVcpu::new(vmcs, registers, cpu.index);
    if ActivityState(vcpu.vmcs.read(vmcs::GUEST_ACTIVITY)) == ActivityState::WAIT_FOR_SIPI {
        // Nobody there can be told, and the banks keep what happened.
        return;
    }
    let event = Interruption(vcpu.vmcs.read(vmcs::ENTRY_INTERRUPTION_INFORMATION));
    if event.is_valid() && bitmaps::has_monitor_trap() {
        cpu.keep_machine_check();
        return set_monitor_trap(&mut vcpu, true);
    }
    vcpu.finish_delivery();
    let action = machine_check::give(vcpu.cr4());
    apply(&mut vcpu, ExitReason::EXCEPTION_OR_NMI, action);
    cpu.demand_attention();
}

/// Handles a VMRESUME that the processor refused. Returns true where the VMCS, of an L2 that was never entered, wants
/// VMLAUNCH. What the processor refuses of L1's wishes is L1's failure; else it is state of ours that it calls invalid.
pub(super) extern "C" fn entry_failed(registers: &mut Registers) -> bool {
    // SAFETY: as in `handle_exit`.
    let vmcs = unsafe { CurrentVmcs::new() };
    let error = vmcs.read(vmcs::INSTRUCTION_ERROR);
    if InstructionError(error) == InstructionError::VMRESUME_NOT_LAUNCHED {
        return true;
    }
    if nested::refused(registers, percpu::current(), error) {
        return false;
    }
    panic!("VM entry failed: VM-instruction error {error}")
}

#[cfg(test)]
#[path = "run_tests.rs"]
mod tests;
