//! What strikes an entry into L2, or waits for one: NMIs and machine checks of L1's processor, and the exit that an INIT
//! signal leads to.

use super::l0_event::{self, Raised};
use super::pending_entry::{EarlyExit, Entry, TrapOwner};
use crate::exit::{Action, machine_check};
use crate::memory::guest_physical::GuestPhysical;
use crate::smp::percpu::PerCpu;
use crate::vcpu::Registers;
use crate::vmx::cet;
use crate::vmx::inject::{self, Shutdown};
use crate::vmx::nested::cpu::facts;
use crate::vmx::nested::cpu::{self, NestedCpu, State};
use crate::vmx::nested::exit::reflect::{self, ExitFacts};
use crate::vmx::nested::exit::to_l1;
use crate::vmx::vcpu::VmxVcpu;
use hw::Vmcs;
use x86::cr::Cr4;
use x86::event::Vector;
use x86::vmx::exit_reason::ExitReason;
use x86::vmx::interruption::{Interruption, InterruptionType};
use x86::vmx::vmcs;

/// Delivers an NMI of L1's that arrived while L2 runs.
pub(in crate::vmx) fn nmi_arrived(registers: &mut Registers, cpu: &PerCpu) {
    let Some(mut state) = cpu::of(cpu) else { return };
    state.nested.pending.give_nmi();
    settle(state, registers, cpu);
}

/// Delivers a machine check of L1's processor that struck the hypervisor while L2 runs.
pub(in crate::vmx) fn machine_check_arrived(registers: &mut Registers, cpu: &PerCpu) {
    let Some(mut state) = cpu::of(cpu) else { return };
    state.nested.pending.give_machine_check();
    settle(state, registers, cpu);
}

/// L2, whose VMCS is current, left for the monitor trap flag or an NMI window that L1 may not have asked for.
pub(crate) fn boundary(state: State, registers: &mut Registers, cpu: &PerCpu, reason: ExitReason) {
    if reason == ExitReason::MONITOR_TRAP_FLAG && state.nested.pending.trap_owner() == TrapOwner::L1 {
        drop(state);
        return to_l1::reflect_now(registers, cpu);
    }
    if reason == ExitReason::NMI_WINDOW {
        inject::end_sti_blocking(&mut state.hardware.current());
    }
    settle(state, registers, cpu);
}

/// Makes of the entry into L2, whose VMCS is current, what it becomes.
pub(crate) fn settle(mut state: State, registers: &mut Registers, cpu: &PerCpu) {
    let mut vmcs02 = state.hardware.current();
    match state.nested.pending.settle(&mut vmcs02) {
        Entry::Runs => (),
        Entry::WaitsForStartup => cpu.waits_for_startup(),
        Entry::Leaves(exit) => leave_early(state, registers, cpu, exit, &facts_of(exit)),
        Entry::TakesMachineCheck => take_machine_check(state, registers, cpu),
    }
}

/// L2 takes the machine check that waits, or leaves for it (SDM, "Exceptions" in "VM Exits").
fn take_machine_check(mut state: State, registers: &mut Registers, cpu: &PerCpu) {
    let vmcs02 = state.hardware.current();
    let event = match machine_check::give(Cr4::from_bits_retain(vmcs02.read(vmcs::GUEST_CR4))) {
        Action::Inject(event) => Ok(event),
        _ => Err(Shutdown),
    };
    match l0_event::raise(&state.nested.vmcs12, event) {
        Raised::Exit(facts) => leave_early(state, registers, cpu, EarlyExit::MachineCheck, &facts),
        Raised::Inject(event) => {
            // Taken before the rest is decided, in which it has no more part.
            state.nested.pending.take_machine_check();
            VmxVcpu::new(vmcs02, registers, cpu.index).take(event);
            settle(state, registers, cpu);
        }
    }
}

/// Returns what L1 is told of an exit but a machine check's.
fn facts_of(exit: EarlyExit) -> ExitFacts {
    match exit {
        EarlyExit::Init => ExitFacts::new(ExitReason::INIT, 0),
        EarlyExit::NmiWindow => ExitFacts::new(ExitReason::NMI_WINDOW, 0),
        EarlyExit::MachineCheck => ExitFacts::new(ExitReason::TRIPLE_FAULT, 0),
        EarlyExit::Nmi => ExitFacts {
            interruption: Interruption::new(Vector::NMI.0, InterruptionType::NMI, false),
            ..ExitFacts::new(ExitReason::EXCEPTION_OR_NMI, 0)
        },
    }
}

/// Hands L1 an exit in whose stead the hardware does not enter: all that it would have checked is checked first.
fn leave_early(mut state: State, registers: &mut Registers, cpu: &PerCpu, exit: EarlyExit, told: &ExitFacts) {
    let NestedCpu { nested, hardware, .. } = &mut *state;
    if nested.pending.is_new()
        && let Some(facts) = facts()
    {
        // An entry that fails has no exit before its first instruction, so that the checks decide first (SDM,
        // "Checking and Loading Guest State").
        let checked = nested.check_all_guest_state(facts, &GuestPhysical, hardware);
        hardware.select_l2();
        if let Err(failure) = checked {
            let (state, action) = to_l1::give_up(state, registers, cpu, &ExitFacts::from(failure));
            return to_l1::exited(state, registers, cpu, action);
        }
        // What a processor loads that enters, and saves where it leaves.
        match (facts.capability.has_cet(), cpu.loads_cet()) {
            (true, true) => cet::load_now(&hardware.current()),
            (true, false) => cet::save_registers(&mut hardware.current()),
            (false, _) => (),
        }
    }
    // Taken only now: where the entry failed above, the event waits on for L1.
    nested.pending.leave_early(exit);
    reflect::save_early_exit(&mut nested.vmcs12, told);
    let (state, action) = to_l1::leave(state, registers, cpu, exit == EarlyExit::Nmi);
    to_l1::exited(state, registers, cpu, action);
}
