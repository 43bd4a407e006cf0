//! The entry into L2, and entries that the hardware refuses.
//!
//! UNSAFETY: the controls under which L2 is entered.
#![expect(unsafe_code, reason = "controls of VMCS02")]

use super::checks::EntryFailure;
use super::refusal::{self, Refusal};
use super::vmcs02::{self, InheritedByL2};
use crate::exit::Action;
use crate::memory::guest_physical::GuestPhysical;
use crate::smp::percpu::PerCpu;
use crate::vcpu::{EventState, RegisterState, Registers};
use crate::vmx::nested::bitmap::pages;
use crate::vmx::nested::cpu::{self, NestedCpu, State};
use crate::vmx::nested::event::{delivery, nmi};
use crate::vmx::nested::exit::reflect::{self, ExitFacts, InheritedByL1};
use crate::vmx::nested::exit::to_l1;
use crate::vmx::nested::instruction::{self, Status};
use crate::vmx::nested::l2_vmcs::L2View;
use crate::vmx::nested::memory::missing_page::Note;
use crate::vmx::nested::memory::translation::set_translation;
use crate::vmx::nested::msr_area::Unusable;
use crate::vmx::nested::msr_area::l1_msrs;
use crate::vmx::nested::vmcs12::controls::L1Controls;
use crate::vmx::nested::vmx_abort::{self, Abort};
use crate::vmx::nested::{Facts, Nested, Operation};
use crate::vmx::observers::observers;
use crate::vmx::vcpu::VmxVcpu;
use crate::vmx::{cet, inject};
use hw::Vmcs;
use hw::bare::vmx::CurrentVmcs;
use x86::vmx::controls::{EntryControls, PrimaryControls};
use x86::vmx::instruction_error::InstructionError;
use x86::vmx::vmcs;

/// Tells the hypapp that L2, whose VMCS is current, is about to run, and delivers what waits.
pub(crate) fn entered(mut state: State, registers: &mut Registers, cpu: &PerCpu) {
    state.missing_page = Note::of_event(false);
    let view = L2View::new(state.hardware.current(), state.nested.vmcs12.read(vmcs::CR0_MASK));
    let is_plain = state.nested.pending.is_plain(&state.nested.vmcs12);
    // A hypapp may ask for things that need the state.
    drop(state);
    // The hypapp hears of the entry before `settle` may make an exit of it, of which the hypapp hears too.
    cpu.machine.hypapp.nested_entry(&mut VmxVcpu::new(view, registers, cpu.index));
    if !is_plain && let Some(state) = cpu::of(cpu) {
        delivery::settle(state, registers, cpu);
    }
}

/// Enters L2, or has the entry fail.
pub(crate) fn enter(
    mut state: State,
    cpu: &PerCpu,
    facts: &Facts,
    l1: &mut VmxVcpu<'_, CurrentVmcs>,
) -> (State, Action) {
    let NestedCpu { nested, hardware, .. } = &mut *state;
    // L1's state is read while its VMCS is current: an entry that fails behind this goes back to it.
    let inherited = InheritedByL2::of(l1);
    let counters = observers().values(&l1.vmcs);
    let for_l1 = InheritedByL1::from(&inherited);
    // All checks of guest state come before anything of L2's is loaded (SDM, "Checking and Loading Guest State").
    let pdptes = match nested.check_guest_state(facts, l1, &GuestPhysical, hardware) {
        Ok(pdptes) => pdptes,
        Err(failure) => {
            let is_blocked = nmi::is_blocked(&l1.vmcs);
            return to_l1::fail(state, l1, cpu, &ExitFacts::from(failure), &for_l1, is_blocked);
        }
    };
    // Not before the checks: an entry that they stop leaves the launch state as it was.
    nested.begin_entry();
    // While the VMCS of L1 is current, whose controls ask for the window.
    take_nmi(l1, nested);
    let vmcs12 = &mut nested.vmcs12;
    let mut vmcs02 = hardware.select_l2();
    // Before the merge, which forgets what is dirty.
    pages::set_pages(&mut vmcs02, vmcs12, hardware);
    let l0 = hardware.l0_controls.watching(cpu.watched.events());
    // SAFETY: controls and host state were checked before this, guest state above; pages and bitmaps have just been
    // named.
    unsafe { vmcs02::enter(&mut vmcs02, vmcs12, &facts.capability, &l0, &inherited) };
    // After the merge, which writes the activity state that an injected event changes.
    nested.pending.begin(&mut vmcs02, vmcs12);
    if let Some(pdptes) = pdptes {
        // What was checked is what L2 gets: the table lies in L1's memory and may have changed since.
        vmcs02::set_pdptes(&mut vmcs02, pdptes);
    }
    set_translation(&mut vmcs02, vmcs12, &mut hardware.vpids, cpu);
    // L2 goes on with L1's values. What the entry loads in their stead is written after them.
    hardware.counters.enter(observers(), &mut vmcs02, counters);
    if L1Controls::of(vmcs12).entry.contains(EntryControls::LOAD_PERF_GLOBAL_CTRL) {
        let value = vmcs12.read(vmcs::GUEST_PERF_GLOBAL_CTRL);
        l1_msrs::load_perf_global_ctrl(&mut vmcs02, value);
    }
    let loads_cet = L1Controls::of(vmcs12).entry.contains(EntryControls::LOAD_CET_STATE);
    // An area is loaded behind the state, and may change it. Else the processor loads it, once it has checked all.
    let has_area = vmcs12.read(vmcs::ENTRY_MSR_LOAD_COUNT) != 0;
    if loads_cet && has_area {
        cet::load_now(&vmcs02);
    }
    // The MSR-load area comes last and may replace what fields loaded (SDM, "Loading MSRs" in "VM Entries"). What comes to
    // a hypapp from here on is L2's.
    nested.operation = Operation::NonRoot;
    let (mut state, loaded) = l1_msrs::load_on_entry(state, l1.registers_mut(), cpu, facts);
    let NestedCpu { nested, hardware, .. } = &mut *state;
    if let Err(Unusable { entry }) = loaded {
        nested.revert_entry();
        hardware.select_l1();
        // The blocking that the entry loaded stays.
        let is_blocked = nested.pending.blocking_after_exit(nmi::is_blocked(&nested.vmcs12), false).l1;
        let facts = ExitFacts::from(EntryFailure::MsrLoading { entry });
        return to_l1::fail(state, l1, cpu, &facts, &for_l1, is_blocked);
    }
    if loads_cet {
        let mut vmcs02 = hardware.current();
        if has_area {
            cet::save_registers(&mut vmcs02);
        }
        // After the area, which may have written these registers: the entry loads what they hold by now.
        cet::start_loading(&mut vmcs02);
    }
    (state, Action::Resume)
}

/// An NMI that waits for L1 waits for L2 from now on, by other rules.
fn take_nmi(l1: &mut VmxVcpu<'_, CurrentVmcs>, nested: &mut Nested) {
    let controls = PrimaryControls::from_bits_retain(l1.vmcs.read(vmcs::PRIMARY_CONTROLS));
    if controls.contains(PrimaryControls::NMI_WINDOW_EXITING) {
        inject::set_nmi_window(l1, false);
        nested.pending.give_nmi();
    }
}

/// The processor does not take the state with which L1 was to go on. Where an exit of L2 loaded it, no check of ours saw
/// what the processor saw: a VMX abort. `None` where the hypervisor made the state.
pub(in crate::vmx) fn invalid_state(vcpu: &VmxVcpu<'_, CurrentVmcs>, cpu: &PerCpu) -> Option<Action> {
    let state = cpu::of(cpu)?;
    let nested = &state.nested;
    if nested.operation != Operation::Root || !reflect::is_as_loaded(&vcpu.vmcs, &nested.vmcs12) {
        return None;
    }
    log::warn!("cpu={} the processor refuses host state that L1's checks let pass", cpu.index);
    Some(vmx_abort::end(nested.current, &GuestPhysical, Abort::HostMsrs))
}

/// The processor refused VMCS02 before it loaded any of it: L1's entry fails, or an L2 that ran before leaves. Returns
/// false where the fault is ours.
pub(in crate::vmx) fn refused(registers: &mut Registers, cpu: &PerCpu, error: u32) -> bool {
    let Some(mut state) = cpu::of(cpu) else { return false };
    let NestedCpu { nested, hardware, .. } = &mut *state;
    // Of a compartment L1 knows nothing.
    if nested.operation != Operation::NonRoot || cpu.is_in_compartment() {
        return false;
    }
    cpu.runs_again();
    if nested.pending.is_new() {
        log::warn!(
            "cpu={} the processor refuses an entry that L1's checks let pass: error {error}",
            cpu.index
        );
        vm_fail(state, registers, cpu, error);
        return true;
    }
    if let Refusal::Leaves(facts) = Refusal::of(&mut hardware.current(), &mut nested.vmcs12, error) {
        if facts == refusal::SHUTDOWN {
            log::warn!(
                "cpu={} the processor refuses a guest's guest that ran before: error {error}",
                cpu.index
            );
        }
        let (state, action) = to_l1::leave_refused(state, registers, cpu, &facts);
        to_l1::exited(state, registers, cpu, action);
    }
    true
}

/// L1's entry ends in VMfail, after its checks. The VMCS of L2 is current.
fn vm_fail(mut state: State, registers: &mut Registers, cpu: &PerCpu, error: u32) {
    let NestedCpu { nested, hardware, .. } = &mut *state;
    nested.operation = Operation::Root;
    nested.revert_entry();
    // Before the VMCS of L1 is made current: what the hypervisor asked for on its own behalf is in the VMCS of L2.
    nested.pending.withdraw(&mut hardware.current());
    let mut l1 = VmxVcpu::new(hardware.select_l1(), registers, cpu.index);
    instruction::conclude(nested, &mut l1, Status::Fail(InstructionError(error)));
    l1.advance();
    // L1's instruction is over before an event strikes, which therefore strikes at the next one.
    if nested.pending.take_machine_check() {
        cpu.give_machine_check();
    }
    if nested.pending.take_nmi() {
        inject::nmi(&mut l1);
    }
    to_l1::exited(state, registers, cpu, Action::Resume);
}
