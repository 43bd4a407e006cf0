//! From L2 back to L1: exits that L1 gets, entries that fail, and L1's host state.

use super::reflect::{self, ExitFacts, InheritedByL1};
use crate::exit::Action;
use crate::memory::guest_physical::GuestPhysical;
use crate::smp::percpu::PerCpu;
use crate::vcpu::{EventState, Registers};
use crate::vmx::nested::Operation;
use crate::vmx::nested::cpu::{self, NestedCpu, State};
use crate::vmx::nested::event::nmi;
use crate::vmx::nested::memory::translation;
use crate::vmx::nested::msr_area::l1_msrs;
use crate::vmx::nested::vmcs12::controls::L1Controls;
use crate::vmx::nested::vmx_abort::{self, Abort};
use crate::vmx::observers::observers;
use crate::vmx::vcpu::VmxVcpu;
use crate::vmx::{cet, inject};
use hw::Vmcs;
use hw::bare::Processor;
use hw::bare::vmx::CurrentVmcs;
use x86::vmx::controls::{ExitControls, SecondaryControls};
use x86::vmx::exit_reason::ExitReason;
use x86::vmx::interruption::InterruptionType;
use x86::vmx::vmcs;

/// Hands the exit that the hardware tells of to L1.
pub(crate) fn reflect_now(registers: &mut Registers, cpu: &PerCpu) {
    let Some(state) = cpu::of(cpu) else { return };
    let told = ExitReason(state.hardware.current().read(vmcs::EXIT_REASON));
    let (state, action) = reflect(state, registers, cpu, told);
    exited(state, registers, cpu, action);
}

/// Hands the exit that the hardware tells of to L1, with its flags.
pub(crate) fn reflect(
    mut state: State,
    registers: &mut Registers,
    cpu: &PerCpu,
    told: ExitReason,
) -> (State, Action) {
    reflect::save_exit(&state.hardware.current(), &mut state.nested.vmcs12, told);
    leave(state, registers, cpu, false)
}

/// Hands an exit to L1 that the hardware does not tell of as it is.
pub(crate) fn reflect_facts(
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

/// Leaves L2 for L1, which VMCS12 tells of the exit.
pub(crate) fn leave(
    mut state: State,
    registers: &mut Registers,
    cpu: &PerCpu,
    is_nmi: bool,
) -> (State, Action) {
    cpu.count_reflected_exit();
    let mut vmcs02 = state.hardware.current();
    // State before MSRs (SDM, "Saving Guest State"; "Saving MSRs" in "VM Exits"): what an abort leaves in VMCS12 is whole.
    reflect::save_guest_state(&vmcs02, &mut state.nested.vmcs12);
    if let Some(facts) = cpu::facts() {
        let stored;
        (state, stored) = l1_msrs::store_on_exit(state, registers, cpu, facts);
        if stored.is_err() {
            // What ends the guest goes on with the VMCS of L1.
            state.hardware.select_l1();
            let action = vmx_abort::end(state.nested.current, &GuestPhysical, Abort::GuestMsrs);
            return (state, action);
        }
    }
    let NestedCpu { nested, hardware, .. } = &mut *state;
    // What L1 keeps of L2's processor is read while the VMCS of L2 is current.
    let mut inherited = InheritedByL1::of(&vmcs02, &nested.vmcs12);
    if cpu.loads_cet() {
        inherited.ssp = Some(vmcs02.read(vmcs::GUEST_SSP));
    }
    let counters = hardware.counters.leave(observers(), &vmcs02);
    // From VMCS12, which has by now what the hardware saved, and gets what L1 is to see.
    let blocking = nested.pending.blocking_after_exit(nmi::is_blocked(&nested.vmcs12), is_nmi);
    nmi::set_blocked(&mut nested.vmcs12, blocking.saved);
    nested.pending.withdraw(&mut vmcs02);
    // Behind the last of L2's, before the first branch of L1's.
    hardware.barrier.raise(&Processor);
    // Not before VMCS12 is complete: the shadow VMCS is written from it, which L1 reads without an exit.
    let mut l1 = VmxVcpu::new(hardware.return_to_l1(&nested.vmcs12), registers, cpu.index);
    hardware.counters.give_to_l1(observers(), &mut l1.vmcs, counters);
    load_host(state, &mut l1, cpu, &inherited, blocking.l1)
}

/// Has an L2 leave that ran before and cannot be entered again. Its VMCS is current.
pub(crate) fn leave_refused(
    mut state: State,
    registers: &mut Registers,
    cpu: &PerCpu,
    facts: &ExitFacts,
) -> (State, Action) {
    // An NMI that was not injected is L1's.
    state.nested.pending.failed();
    reflect::save_early_exit(&mut state.nested.vmcs12, facts);
    leave(state, registers, cpu, false)
}

/// Gives an entry up that failed, and tells L1. The VMCS of L2 is current, and the hardware did not enter.
pub(crate) fn give_up(
    mut state: State,
    registers: &mut Registers,
    cpu: &PerCpu,
    facts: &ExitFacts,
) -> (State, Action) {
    let NestedCpu { nested, hardware, .. } = &mut *state;
    let mut vmcs02 = hardware.current();
    let inherited = InheritedByL1::of(&vmcs02, &nested.vmcs12);
    nested.revert_entry();
    nested.pending.withdraw(&mut vmcs02);
    let mut l1 = VmxVcpu::new(hardware.select_l1(), registers, cpu.index);
    // L1's was not replaced.
    let is_blocked = nmi::is_blocked(&l1.vmcs);
    fail(state, &mut l1, cpu, facts, &inherited, is_blocked)
}

/// Tells the hypapp of an exit that was handed to L1, whose VMCS is current, and carries out `action`.
pub(crate) fn exited(state: State, registers: &mut Registers, cpu: &PerCpu, action: Action) {
    let vmcs01 = state.hardware.current();
    // A hypapp may ask for things that need the state.
    drop(state);
    // Before the action, which may end the guest and not return.
    cpu.machine.hypapp.nested_exit(&mut VmxVcpu::new(vmcs01, registers, cpu.index));
    end(action);
}

/// Carries out what is left of an exit that was handed to L1: nothing, or the end of the guest.
pub(crate) fn end(action: Action) {
    if let Action::Reset(cause) = action {
        crate::reset::end_guest::end_guest(cause);
    }
}

/// Ends an entry that failed: an exit that saves no guest state (SDM, "VM-Entry Failures During or After Loading
/// Guest State"). The VMCS of L1 is current, and NMIs are blocked behind the exit or not.
pub(crate) fn fail(
    mut state: State,
    l1: &mut VmxVcpu<'_, CurrentVmcs>,
    cpu: &PerCpu,
    facts: &ExitFacts,
    inherited: &InheritedByL1,
    is_blocked: bool,
) -> (State, Action) {
    let NestedCpu { nested, hardware, .. } = &mut *state;
    reflect::save_facts(&mut nested.vmcs12, facts);
    hardware.return_to_l1(&nested.vmcs12);
    load_host(state, l1, cpu, inherited, is_blocked)
}

/// L1 goes on with its host state, NMIs blocked or not, and takes one that waits. The VMCS of L1 is current.
pub(crate) fn load_host(
    state: State,
    l1: &mut VmxVcpu<'_, CurrentVmcs>,
    cpu: &PerCpu,
    inherited: &InheritedByL1,
    is_blocked: bool,
) -> (State, Action) {
    let (mut state, action) = load_host_state(state, l1, cpu, inherited);
    // An exit is over before an event is taken: what waits strikes L1 in its host state, behind the blocking that the
    // exit leaves (SDM, "Loading Host State"; "Updating Non-Register State").
    if is_blocked {
        l1.set_nmi_blocking(true);
    }
    if state.nested.pending.take_machine_check() {
        cpu.give_machine_check();
    }
    if state.nested.pending.take_nmi() {
        inject::nmi(l1);
    }
    (state, action)
}

fn load_host_state(
    mut state: State,
    l1: &mut VmxVcpu<'_, CurrentVmcs>,
    cpu: &PerCpu,
    inherited: &InheritedByL1,
) -> (State, Action) {
    cpu.runs_again();
    let nested = &mut state.nested;
    // Before the MSRs are loaded: what comes to a hypapp from here on is L1's.
    nested.operation = Operation::Root;
    if !L1Controls::of(&nested.vmcs12).secondary.contains(SecondaryControls::ENABLE_VPID) {
        // CR3 is loaded, whether the entry failed or not.
        translation::drop_l1_translations();
    }
    if reflect::load_host_state(l1, &nested.vmcs12, inherited, &GuestPhysical).is_err() {
        let action = vmx_abort::end(nested.current, &GuestPhysical, Abort::HostPdptes);
        return (state, action);
    }
    if L1Controls::of(&nested.vmcs12).exit.contains(ExitControls::LOAD_PERF_GLOBAL_CTRL) {
        let value = nested.vmcs12.read(vmcs::HOST_PERF_GLOBAL_CTRL);
        l1_msrs::load_perf_global_ctrl(&mut l1.vmcs, value);
    }
    let mut ssp = inherited.ssp;
    if L1Controls::of(&nested.vmcs12).exit.contains(ExitControls::LOAD_CET_STATE) {
        let host = &nested.vmcs12;
        cet::write_registers(host.read(vmcs::HOST_S_CET), host.read(vmcs::HOST_INTERRUPT_SSP_TABLE));
        ssp = Some(host.read(vmcs::HOST_SSP));
    }
    let Some(facts) = cpu::facts() else { return (state, Action::Resume) };
    // The area comes last and may replace what fields loaded (SDM, "Loading MSRs" in "VM Exits").
    let (state, loaded) = l1_msrs::load_on_exit(state, l1, cpu, facts);
    if let Some(ssp) = ssp {
        // After the area, which may have written the registers that the entry loads along with SSP.
        cet::load_at_entry(&mut l1.vmcs, ssp);
    }
    let action = match loaded {
        Ok(()) => Action::Resume,
        Err(_) => vmx_abort::end(state.nested.current, &GuestPhysical, Abort::HostMsrs),
    };
    (state, action)
}
