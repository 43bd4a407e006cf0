//! NMI/INIT/SIPI: signals to a processor in a guest's guest, in each activity state, and in its hypervisor.
//! cpus: 2
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use guest::cpu::{pause, wait, wait_until};
use guest::vmx::prelude::*;
use guest::vmx::verdict::Entry;
use guest::{apic, smp};
use x86::vmx::controls::PinBasedControls;

guest!(main);

const ACTIVE: u32 = 0;
const HLT: u32 = 1;
const SHUTDOWN: u32 = 2;
const WAIT_FOR_SIPI: u32 = 3;
/// Ticks in which a signal that can arrive does.
const WHILE: u64 = 300_000;
const VECTOR: u8 = 0x9a;
const NOTHING: u32 = u32::MAX;

/// Activity state in which the other CPU's guest begins.
static ACTIVITY: AtomicU32 = AtomicU32::new(0);
/// What the other CPU's guest left for, or [`NOTHING`].
static REASON: AtomicU32 = AtomicU32::new(NOTHING);
static QUALIFICATION: AtomicU64 = AtomicU64::new(0);
static SAVED_ACTIVITY: AtomicU32 = AtomicU32::new(NOTHING);
static IS_INSIDE: AtomicBool = AtomicBool::new(false);
static IS_OVER: AtomicBool = AtomicBool::new(false);

fn main() {
    check!(smp::start_others(1), "two CPUs");
    for activity in [ACTIVE, HLT, SHUTDOWN] {
        for _ in 0..3 {
            init_in_l2(activity);
        }
    }
    for round in 0..3 {
        startup_in_l2(VECTOR + round);
    }
    startup_elsewhere();
    nmi_in_l2();
    init_in_root();
}

fn target() -> u32 {
    smp::apic_id(1)
}

/// The other CPU: runs a guest once, in the activity state that is asked for, and tells its exit.
fn enter_once() {
    enter_operation();
    run_guest(PinBasedControls::NMI_EXITING);
    leave_operation();
}

fn run_guest(controls: PinBasedControls) {
    let mut nested = Guest::new(spin);
    check!(nested.add_pin(controls), "pin-based controls");
    nested.write(vmcs::GUEST_ACTIVITY, ACTIVITY.load(Ordering::SeqCst));
    IS_INSIDE.store(true, Ordering::SeqCst);
    match nested.try_entry() {
        Entry::Entered => {
            QUALIFICATION.store(nested.read(vmcs::EXIT_QUALIFICATION), Ordering::SeqCst);
            SAVED_ACTIVITY.store(nested.read(vmcs::GUEST_ACTIVITY), Ordering::SeqCst);
            REASON.store(nested.read(vmcs::EXIT_REASON), Ordering::SeqCst);
        }
        other => {
            check!(false, "the entry: {other:?}");
        }
    }
    nested.clear();
}

extern "C" fn spin() {
    while !IS_OVER.load(Ordering::SeqCst) {
        pause();
    }
}

/// Has the other CPU's guest begin, and waits until it is in it.
fn begin(activity: u32) {
    ACTIVITY.store(activity, Ordering::SeqCst);
    REASON.store(NOTHING, Ordering::SeqCst);
    IS_INSIDE.store(false, Ordering::SeqCst);
    IS_OVER.store(false, Ordering::SeqCst);
    smp::begin_on(1, enter_once);
    check!(wait_until(smp::PATIENCE, || IS_INSIDE.load(Ordering::SeqCst)), "the other CPU enters");
    wait(WHILE);
    check_eq!(REASON.load(Ordering::SeqCst), NOTHING, "an exit without a cause, activity {activity}");
}

/// The exit that the other CPU tells of, and the end of its job.
fn exit() -> u32 {
    wait_until(smp::PATIENCE / 4, || REASON.load(Ordering::SeqCst) != NOTHING);
    IS_OVER.store(true, Ordering::SeqCst);
    check!(wait_until(smp::PATIENCE, || smp::is_ready(1)), "the other CPU ends");
    REASON.load(Ordering::SeqCst)
}

fn name(reason: u32) -> &'static str {
    ExitReason(reason).name()
}

/// SDM, "Other Causes of VM Exits": the exit is all that INIT does.
fn init_in_l2(activity: u32) {
    begin(activity);
    apic::init(target());
    check_eq!(name(exit()), ExitReason::INIT.name(), "INIT in activity state {activity}");
    check_eq!(SAVED_ACTIVITY.load(Ordering::SeqCst), activity, "activity state behind INIT");
}

/// A processor that waits for it leaves by a start-up IPI, and INIT does nothing to it.
fn startup_in_l2(vector: u8) {
    begin(WAIT_FOR_SIPI);
    apic::startup(target(), vector);
    check_eq!(name(exit()), ExitReason::STARTUP_IPI.name(), "a start-up IPI while waiting for it");
    check_eq!(QUALIFICATION.load(Ordering::SeqCst), u64::from(vector), "its vector");
    check_eq!(SAVED_ACTIVITY.load(Ordering::SeqCst), WAIT_FOR_SIPI, "activity state behind it");
}

/// Everybody else does not notice.
fn startup_elsewhere() {
    for activity in [ACTIVE, HLT] {
        begin(activity);
        apic::startup(target(), VECTOR);
        wait(WHILE);
        check_eq!(REASON.load(Ordering::SeqCst), NOTHING, "a start-up IPI in activity state {activity}");
        apic::init(target());
        check_eq!(name(exit()), ExitReason::INIT.name(), "INIT behind it");
    }
}

fn nmi_in_l2() {
    for activity in [ACTIVE, HLT, SHUTDOWN] {
        begin(activity);
        apic::nmi(target());
        check_eq!(name(exit()), ExitReason::EXCEPTION_OR_NMI.name(), "NMI in activity state {activity}");
        check_eq!(SAVED_ACTIVITY.load(Ordering::SeqCst), activity, "activity state behind an NMI");
    }
    // One that waits is its hypervisor's as soon as that runs.
    guest::trap::handle(2, Some(|_| true));
    begin(WAIT_FOR_SIPI);
    apic::nmi(target());
    wait(WHILE);
    check_eq!(REASON.load(Ordering::SeqCst), NOTHING, "NMI while waiting for a start-up IPI");
    apic::startup(target(), VECTOR);
    check_eq!(name(exit()), ExitReason::STARTUP_IPI.name(), "a start-up IPI behind it");
    check!(smp::run_on(1, guest::cpu::iret), "NMIs of the other CPU");
    guest::trap::handle(2, None);
}

/// The other CPU stays in VMX root operation until it is told, then runs a guest.
fn stay_in_root() {
    enter_operation();
    IS_INSIDE.store(true, Ordering::SeqCst);
    while !IS_OVER.load(Ordering::SeqCst) {
        pause();
    }
    IS_OVER.store(false, Ordering::SeqCst);
    run_guest(PinBasedControls::NMI_EXITING);
    leave_operation();
}

/// The other CPU stays in VMX root operation until it is told, and leaves it.
fn stay_and_leave() {
    enter_operation();
    IS_INSIDE.store(true, Ordering::SeqCst);
    while !IS_OVER.load(Ordering::SeqCst) {
        pause();
    }
    leave_operation();
    // INIT that waited comes now.
    wait(smp::PATIENCE);
}

/// INIT waits in VMX root operation: for the next entry, whose guest leaves at once, or for VMXOFF, which it follows.
fn init_in_root() {
    for job in [stay_in_root as fn(), stay_and_leave] {
        ACTIVITY.store(ACTIVE, Ordering::SeqCst);
        REASON.store(NOTHING, Ordering::SeqCst);
        IS_INSIDE.store(false, Ordering::SeqCst);
        IS_OVER.store(false, Ordering::SeqCst);
        smp::begin_on(1, job);
        check!(wait_until(smp::PATIENCE, || IS_INSIDE.load(Ordering::SeqCst)), "VMX root operation");
        apic::init(target());
        wait(WHILE);
        if job as usize == stay_in_root as fn() as usize {
            IS_OVER.store(true, Ordering::SeqCst);
            let seen = exit();
            check_eq!(name(seen), ExitReason::INIT.name(), "INIT that waited for the entry");
            continue;
        }
        let vector = smp::startup_vector();
        apic::startup(target(), vector);
        wait(WHILE);
        check!(!smp::is_ready(1), "a start-up IPI in VMX root operation does nothing");
        smp::forget_arrivals();
        IS_OVER.store(true, Ordering::SeqCst);
        wait(WHILE);
        apic::startup(target(), vector);
        let is_started = wait_until(smp::PATIENCE / 4, || smp::is_ready(1)) && smp::arrived() == 2;
        check!(is_started, "INIT that waited for VMXOFF makes a start-up IPI count");
    }
    check!(wait_until(smp::PATIENCE, || smp::is_ready(1)), "the other CPU is there");
    begin(ACTIVE);
    apic::init(target());
    check_eq!(name(exit()), ExitReason::INIT.name(), "INIT to a guest after all that");
}
