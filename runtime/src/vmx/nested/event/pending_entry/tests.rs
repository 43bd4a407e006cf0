use super::model::{Fault, Flaw, ModelState, Plan, Purpose};
use super::*;
use hw::sim::SimVmcs;
use std::collections::HashSet;
use x86::vmx::controls::PinBasedControls;

const UD: u32 = 0x8000_0306;
const NMI: u32 = 0x8000_0202;
const PENDING_MTF: u32 = 0x8000_0700;

/// Everything that L1's checks let pass.
fn plans(flaw: Flaw) -> Vec<Plan> {
    let mut plans = Vec::new();
    let purposes = [Purpose::None, Purpose::Shootdown, Purpose::Rendezvous];
    for (mode, purpose) in [Mode::Guest, Mode::Exiting, Mode::Virtual]
        .iter()
        .flat_map(|mode| purposes.map(|purpose| (*mode, purpose)))
    {
        for (activity, event) in events() {
            for bits in 0..32_u8 {
                let bit = |number: u8| bits >> number & 1 == 1;
                let plan = Plan {
                    mode,
                    activity,
                    event,
                    has_trap: bit(0),
                    has_window: bit(1),
                    is_blocked: bit(2),
                    is_l1_blocked: bit(3),
                    fails: bit(4),
                    purpose,
                    flaw,
                };
                let is_sound = (!plan.has_window || mode == Mode::Virtual)
                    && !(plan.is_blocked && mode == Mode::Virtual && event == NMI);
                if is_sound {
                    plans.push(plan);
                }
            }
        }
    }
    plans
}

/// Activity states with what may be injected in them (SDM, "Checks on Guest Non-Register State").
fn events() -> Vec<(ActivityState, u32)> {
    let active = [0, UD, NMI, PENDING_MTF].map(|event| (ActivityState::ACTIVE, event));
    let halted = [0, NMI, PENDING_MTF].map(|event| (ActivityState::HLT, event));
    let shut_down = [0, NMI].map(|event| (ActivityState::SHUTDOWN, event));
    let all = active.into_iter().chain(halted).chain(shut_down);
    all.chain([(ActivityState::WAIT_FOR_SIPI, 0)]).collect()
}

/// Goes through every order of steps; the number of states, or the first promise that is broken.
fn explore(plan: &Plan) -> Result<usize, Fault> {
    let first = ModelState::new(plan);
    let mut seen = HashSet::from([first.clone()]);
    let mut open = vec![first];
    while let Some(state) = open.pop() {
        for next in state.steps(plan)? {
            if seen.insert(next.clone()) {
                open.push(next);
            }
        }
    }
    Ok(seen.len())
}

fn finds(flaw: Flaw, fault: Fault) -> bool {
    plans(flaw).iter().any(|plan| explore(plan) == Err(fault))
}

#[test]
fn no_order_of_steps_breaks_a_promise() {
    let mut states = 0;
    for plan in plans(Flaw::None) {
        match explore(&plan) {
            Ok(count) => states += count,
            Err(fault) => panic!("{fault}: {plan:?}"),
        }
    }
    assert!(states > 100_000, "{states} states are too few to say anything");
}

#[test]
fn each_measure_that_is_taken_out_is_missed() {
    for (flaw, expected) in [
        (Flaw::PublishesFirst, "guest code runs with a stale translation"),
        (Flaw::PublishesFirst, "guest code runs during a rendezvous"),
        (Flaw::StrikesWaiting, "an exit while waiting for a start-up IPI"),
        (Flaw::StaleVectoring, "an exit tells of what another interrupted"),
        (Flaw::DropsInjection, "an NMI is lost"),
        (Flaw::DropsAtTrap, "an NMI is lost"),
        (Flaw::ChecksTooLate, "an entry that has to fail does not, or another does"),
        (Flaw::TakesInjectedTrap, "an NMI out of nothing"),
        (Flaw::WakesNobody, "the processor refuses what the hypervisor made of L1's wishes"),
        (Flaw::ResetsForL2, "L2's shutdown is no triple fault for L1"),
        (Flaw::OvertakesEvent, "a signal overtakes the event that is injected"),
    ] {
        assert!(finds(flaw, expected), "{flaw:?}: {expected}");
    }
}

/// What becomes of an entry without an event where an NMI waits, and the VMCS of L2 then.
fn with_nmi(pin_based: PinBasedControls, change: impl FnOnce(&mut SimVmcs)) -> (Entry, SimVmcs) {
    let (mut vmcs02, mut vmcs12) = (SimVmcs::default(), Vmcs12::new());
    vmcs12.write(vmcs::PIN_BASED_CONTROLS, pin_based.bits());
    vmcs02.write(vmcs::PIN_BASED_CONTROLS, pin_based.bits());
    change(&mut vmcs02);
    let mut pending = PendingEntry::new();
    pending.begin(&mut vmcs02, &vmcs12);
    pending.give_nmi();
    (pending.settle(&mut vmcs02), vmcs02)
}

fn controls(vmcs: &SimVmcs) -> PrimaryControls {
    PrimaryControls::from_bits_retain(vmcs.read(vmcs::PRIMARY_CONTROLS))
}

#[test]
fn the_timer_exits_before_an_nmi_that_waits() {
    let (timer, exiting) = (PinBasedControls::PREEMPTION_TIMER, PinBasedControls::NMI_EXITING);
    for (pin_based, left, expected) in [
        (exiting, 0, Entry::Leaves(EarlyExit::Nmi)),
        (exiting | timer, 1, Entry::Leaves(EarlyExit::Nmi)),
        (exiting | timer, 0, Entry::Runs),
        (exiting | timer | PinBasedControls::VIRTUAL_NMIS, 0, Entry::Runs),
        (timer, 0, Entry::Runs),
    ] {
        let (entry, vmcs02) = with_nmi(pin_based, |vmcs02| vmcs02.write(vmcs::PREEMPTION_TIMER, left));
        assert_eq!(entry, expected, "{pin_based:?} with {left} left");
        assert_eq!(vmcs02.read(vmcs::ENTRY_INTERRUPTION_INFORMATION), 0, "an NMI that is L1's");
    }
}

#[test]
fn an_nmi_waits_for_debug_exceptions_that_it_would_drop() {
    for (pending, activity, injected) in [
        (0, ActivityState::ACTIVE, NMI),
        (1 << 14, ActivityState::ACTIVE, 0),
        (1 << 12 | 1, ActivityState::ACTIVE, 0),
        (1, ActivityState::ACTIVE, NMI),
        (1 << 14, ActivityState::HLT, NMI),
    ] {
        let (entry, vmcs02) = with_nmi(PinBasedControls::empty(), |vmcs02| {
            vmcs02.write(vmcs::GUEST_PENDING_DEBUG_EXCEPTIONS, pending);
            vmcs02.write(vmcs::GUEST_ACTIVITY, activity.0);
        });
        assert_eq!(entry, Entry::Runs);
        assert_eq!(vmcs02.read(vmcs::ENTRY_INTERRUPTION_INFORMATION), injected, "{pending:#x}");
        let has_window = controls(&vmcs02).contains(PrimaryControls::NMI_WINDOW_EXITING);
        assert_eq!(has_window, injected == 0, "{pending:#x}");
    }
}

#[test]
fn an_nmi_of_l1s_leaves_by_the_window_that_l1_waits_for() {
    let exiting = PinBasedControls::NMI_EXITING | PinBasedControls::VIRTUAL_NMIS;
    for (primary, blocking, exit) in [
        (PrimaryControls::NMI_WINDOW_EXITING, 0, EarlyExit::NmiWindow),
        (PrimaryControls::NMI_WINDOW_EXITING, 1 << 3, EarlyExit::Nmi),
        (PrimaryControls::empty(), 0, EarlyExit::Nmi),
    ] {
        let (mut vmcs02, mut vmcs12) = (SimVmcs::default(), Vmcs12::new());
        vmcs12.write(vmcs::PIN_BASED_CONTROLS, exiting.bits());
        vmcs12.write(vmcs::PRIMARY_CONTROLS, primary.bits());
        vmcs02.write(vmcs::GUEST_INTERRUPTIBILITY, blocking);
        let mut pending = PendingEntry::new();
        pending.begin(&mut vmcs02, &vmcs12);
        pending.give_nmi();
        assert_eq!(pending.settle(&mut vmcs02), Entry::Leaves(exit), "{primary:?} {blocking:#x}");
    }
}

#[test]
fn init_overtakes_a_pending_mtf_exit_and_no_other_event() {
    for (event, expected) in [
        (PENDING_MTF, Entry::Leaves(EarlyExit::Init)),
        (UD, Entry::Runs),
        (0, Entry::Leaves(EarlyExit::Init)),
    ] {
        let (mut vmcs02, mut vmcs12) = (SimVmcs::default(), Vmcs12::new());
        vmcs12.write(vmcs::ENTRY_INTERRUPTION_INFORMATION, event);
        let mut pending = PendingEntry::new();
        pending.begin(&mut vmcs02, &vmcs12);
        pending.give_init();
        assert_eq!(pending.settle(&mut vmcs02), expected, "{event:#x}");
    }
}

#[test]
fn what_the_hypervisor_wants_is_withdrawn_and_not_what_l1_does() {
    for (of_l1, left) in [(0, 0), (PrimaryControls::MONITOR_TRAP_FLAG.bits(), 1)] {
        let (mut vmcs02, mut vmcs12) = (SimVmcs::default(), Vmcs12::new());
        vmcs12.write(vmcs::PRIMARY_CONTROLS, of_l1);
        vmcs12.write(vmcs::ENTRY_INTERRUPTION_INFORMATION, UD);
        let mut pending = PendingEntry::new();
        pending.begin(&mut vmcs02, &vmcs12);
        pending.give_init();
        assert_eq!(pending.settle(&mut vmcs02), Entry::Runs);
        assert!(controls(&vmcs02).contains(PrimaryControls::MONITOR_TRAP_FLAG));
        pending.withdraw(&mut vmcs02);
        let has_trap = controls(&vmcs02).contains(PrimaryControls::MONITOR_TRAP_FLAG);
        assert_eq!(u32::from(has_trap), left);
    }
}

/// What becomes of an entry under which a machine check waits.
fn with_machine_check(change: impl FnOnce(&mut SimVmcs, &mut Vmcs12)) -> (Entry, PendingEntry, SimVmcs) {
    let (mut vmcs02, mut vmcs12) = (SimVmcs::default(), Vmcs12::new());
    change(&mut vmcs02, &mut vmcs12);
    let mut pending = PendingEntry::new();
    pending.begin(&mut vmcs02, &vmcs12);
    pending.give_machine_check();
    assert!(!pending.is_plain(&vmcs12));
    (pending.settle(&mut vmcs02), pending, vmcs02)
}

#[test]
fn a_machine_check_strikes_before_all_that_waits() {
    let (entry, mut pending, mut vmcs02) = with_machine_check(|_, _| ());
    assert_eq!(entry, Entry::TakesMachineCheck);
    pending.give_nmi();
    pending.give_init();
    assert_eq!(pending.settle(&mut vmcs02), Entry::TakesMachineCheck);
    pending.leave_early(EarlyExit::MachineCheck);
    assert_eq!(pending.settle(&mut vmcs02), Entry::Leaves(EarlyExit::Init));
    assert!(!pending.take_machine_check());
}

#[test]
fn a_machine_check_waits_for_the_event_that_is_delivered() {
    for event in [UD, NMI, 0x8000_0020] {
        let (entry, mut pending, mut vmcs02) = with_machine_check(|_, vmcs12| {
            vmcs12.write(vmcs::ENTRY_INTERRUPTION_INFORMATION, event);
        });
        assert_eq!(entry, Entry::Runs, "{event:#x}");
        assert!(controls(&vmcs02).contains(PrimaryControls::MONITOR_TRAP_FLAG), "{event:#x}");
        // The boundary behind its delivery.
        pending.left_hardware();
        vmcs02.write(vmcs::ENTRY_INTERRUPTION_INFORMATION, 0);
        assert_eq!(pending.trap_owner(), TrapOwner::Hypervisor, "{event:#x}");
        assert_eq!(pending.settle(&mut vmcs02), Entry::TakesMachineCheck, "{event:#x}");
    }
}

#[test]
fn behind_an_injected_trap_a_machine_check_is_l1s() {
    let (entry, mut pending, _) = with_machine_check(|_, vmcs12| {
        vmcs12.write(vmcs::ENTRY_INTERRUPTION_INFORMATION, PENDING_MTF);
    });
    assert_eq!(entry, Entry::Runs);
    pending.left_hardware();
    assert_eq!(pending.trap_owner(), TrapOwner::L1);
    assert!(pending.take_machine_check());
}

#[test]
fn nobody_who_waits_for_a_startup_ipi_takes_a_machine_check() {
    let (entry, mut pending, _) = with_machine_check(|vmcs02, _| {
        vmcs02.write(vmcs::GUEST_ACTIVITY, ActivityState::WAIT_FOR_SIPI.0);
    });
    assert_eq!(entry, Entry::WaitsForStartup);
    assert!(!pending.take_machine_check());
}

#[test]
fn an_instruction_done_for_l2_has_l1s_trap_behind_it() {
    let mut pending = PendingEntry::new();
    let mut vmcs02 = SimVmcs::default();
    for (primary, event, is_due) in [
        (PrimaryControls::MONITOR_TRAP_FLAG, 0, true),
        (PrimaryControls::MONITOR_TRAP_FLAG, UD & !(1 << 31), true),
        (PrimaryControls::MONITOR_TRAP_FLAG, UD, false),
        (PrimaryControls::NMI_WINDOW_EXITING, 0, false),
    ] {
        let mut vmcs12 = Vmcs12::new();
        vmcs12.write(vmcs::PRIMARY_CONTROLS, primary.bits());
        pending.begin(&mut vmcs02, &vmcs12);
        pending.left_hardware();
        vmcs02.write(vmcs::ENTRY_INTERRUPTION_INFORMATION, event);
        assert_eq!(pending.is_trap_due(&vmcs02), is_due, "{primary:?} {event:#x}");
    }
}

#[test]
fn an_entry_is_plain_where_nothing_waits_for_it() {
    let active = Vmcs12::new();
    let mut waiting = Vmcs12::new();
    waiting.write(vmcs::GUEST_ACTIVITY, ActivityState::WAIT_FOR_SIPI.0);
    assert!(PendingEntry::new().is_plain(&active) && !PendingEntry::new().is_plain(&waiting));
    for give in [PendingEntry::give_nmi, PendingEntry::give_init, PendingEntry::give_machine_check] {
        let mut entry = PendingEntry::new();
        give(&mut entry);
        assert!(!entry.is_plain(&active));
    }
}

#[test]
fn what_waited_is_taken_once() {
    let mut entry = PendingEntry::new();
    assert!(!entry.take_init() && !entry.take_machine_check());
    entry.give_init();
    entry.give_machine_check();
    assert_eq!([entry.take_init(), entry.take_init()], [true, false]);
    assert_eq!([entry.take_machine_check(), entry.take_machine_check()], [true, false]);
}
