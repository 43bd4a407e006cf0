//! NMI/INIT/SIPI: INIT and start-up IPIs to a hypervisor between every two steps of its guest's life, and while it is offline.
//! cpus: 2
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use guest::cpu::{cpuid, pause, sleep_deeply, under_hypervisor, wait, wait_until};
use guest::vmx::instruction::{invept, invvpid, vmclear, vmptrld, vmptrst};
use guest::vmx::prelude::*;
use guest::vmx::state::{write_controls, write_guest, write_guest_segments, write_host};
use guest::vmx::{allocate, region, verdict};
use guest::{apic, smp, trap};
use x86::vmx::controls::PrimaryControls;

guest!(main);

/// What the hypervisor has done last where it can be stopped.
const STEPS: [&str; 15] = [
    "nothing",
    "VMXON",
    "VMCLEAR",
    "VMPTRLD",
    "VMWRITE of controls",
    "VMWRITE of host state",
    "VMWRITE of segments",
    "VMWRITE of guest state",
    "VMLAUNCH",
    "the exit",
    "VMRESUME",
    "INVEPT",
    "INVVPID",
    "VMPTRST",
    "VMXOFF",
];
const VMXON: usize = 1;
const LAUNCHED: usize = 8;
const EXITED: usize = 9;
const RESUMED: usize = 10;
const VMPTRST: usize = 13;
const VMXOFF: usize = 14;
const NOWHERE: usize = usize::MAX;
/// Ticks in which a signal that can arrive does.
const WHILE: u64 = 20_000;

/// Where the hypervisor is to stop, and where it stands.
static STOP: AtomicUsize = AtomicUsize::new(NOWHERE);
static AT: AtomicUsize = AtomicUsize::new(NOWHERE);
/// From there it is to leave VMX operation by the shortest way.
static IS_SHORT: AtomicBool = AtomicBool::new(false);
/// The same, told by its guest.
static IS_GUEST_SHORT: AtomicBool = AtomicBool::new(false);
/// An NMI arrived.
static IS_WOKEN: AtomicBool = AtomicBool::new(false);
static IS_LEAVING: AtomicBool = AtomicBool::new(false);
/// Grows while the hypervisor, or its guest, stands.
static BEATS: AtomicU64 = AtomicU64::new(0);
/// Exits of its guest for INIT.
static INITS: AtomicUsize = AtomicUsize::new(0);
static REGION: AtomicU64 = AtomicU64::new(0);
static BITMAP: AtomicU64 = AtomicU64::new(0);

fn main() {
    BITMAP.store(allocate(), Ordering::SeqCst);
    trap::handle(2, Some(wake));
    check!(smp::start_others(1), "two CPUs");
    enter_operation();
    for step in 0..STEPS.len() {
        for is_short in [false, true] {
            strike(step, is_short);
        }
    }
    for _ in 0..3 {
        go_offline(outside);
        go_offline(in_root);
        go_offline(in_its_guest);
    }
    leave_operation();
}

/// The hypervisor stands behind `step`, in L1 or in L2. True: it is to hurry.
fn reach(step: usize) -> bool {
    AT.store(step, Ordering::SeqCst);
    let is_here = STOP.load(Ordering::SeqCst) == step;
    while STOP.load(Ordering::SeqCst) == step {
        BEATS.fetch_add(1, Ordering::SeqCst);
        pause();
    }
    is_here && IS_SHORT.load(Ordering::SeqCst)
}

/// The other CPU's whole life as a hypervisor.
fn walk() {
    reach(0);
    enter_operation();
    let _ = !reach(VMXON) && walk_to_the_entry() && run_guest() && forget();
    leave();
}

fn walk_to_the_entry() -> bool {
    let page = region();
    REGION.store(page, Ordering::SeqCst);
    let steps: [fn(); 6] = [
        || check_all(vmclear(REGION.load(Ordering::SeqCst)), "VMCLEAR"),
        || check_all(vmptrld(REGION.load(Ordering::SeqCst)), "VMPTRLD"),
        write_controls,
        write_host,
        write_guest_segments,
        || write_guest(0, 0),
    ];
    (VMXON + 1..).zip(steps).all(|(number, step)| {
        step();
        !reach(number)
    })
}

fn check_all(result: Result<(), guest::vmx::Failure>, name: &str) {
    check_eq!(result, Ok(()), "{name}");
}

/// Runs the guest to its end, through whatever INIT does to it.
fn run_guest() -> bool {
    let mut nested = Guest::current(REGION.load(Ordering::SeqCst), false);
    check!(nested.add_primary(PrimaryControls::USE_MSR_BITMAPS), "MSR bitmaps");
    nested.write(vmcs::MSR_BITMAPS, BITMAP.load(Ordering::SeqCst));
    nested.call(live);
    loop {
        match nested.run() {
            ExitReason::INIT => {
                INITS.fetch_add(1, Ordering::SeqCst);
            }
            ExitReason::CPUID => {
                if reach(EXITED) {
                    return false;
                }
                nested.advance();
            }
            reason => {
                check!(reason == ExitReason::VMCALL && nested.has_ended(), "exit: {}", reason.name());
                return !IS_GUEST_SHORT.load(Ordering::SeqCst);
            }
        }
    }
}

/// The guest's guest.
extern "C" fn live() {
    let mut is_short = reach(LAUNCHED);
    if !is_short {
        cpuid(0, 0);
        is_short = reach(RESUMED);
    }
    IS_GUEST_SHORT.store(is_short, Ordering::SeqCst);
}

fn forget() -> bool {
    check_all(invept(2, [0; 2]), "INVEPT");
    if reach(11) {
        return false;
    }
    check_all(invvpid(2, [0; 2]), "INVVPID");
    if reach(12) {
        return false;
    }
    check_eq!(vmptrst(), REGION.load(Ordering::SeqCst), "VMPTRST");
    !reach(VMPTRST)
}

/// What the VMCS holds is not cleared out before.
fn leave() {
    IS_LEAVING.store(true, Ordering::SeqCst);
    leave_operation();
    STOP.store(VMXOFF, Ordering::SeqCst);
    reach(VMXOFF);
}

/// INIT and a start-up IPI when the other CPU stands behind `step`; then it goes on, or leaves VMX operation at once.
fn strike(step: usize, is_short: bool) {
    let name = STEPS[step];
    let is_outside = matches!(step, 0 | VMXOFF);
    let is_inside = matches!(step, LAUNCHED | RESUMED);
    begin(walk, step, is_short);
    check!(is_alive(), "the hypervisor lives behind {name}");
    apic::init(smp::apic_id(1));
    wait(WHILE);
    if is_outside {
        check!(!is_alive(), "INIT behind {name}");
    } else {
        check!(is_alive(), "INIT is no reset behind {name}");
        check_eq!(INITS.load(Ordering::SeqCst), usize::from(is_inside), "exits for INIT behind {name}");
        apic::startup(smp::apic_id(1), smp::startup_vector());
        check!(is_alive() && smp::arrived() == 2, "a start-up IPI is nothing behind {name}");
        STOP.store(NOWHERE, Ordering::SeqCst);
        let has_left = wait_until(smp::PATIENCE / 8, || IS_LEAVING.load(Ordering::SeqCst));
        check!(has_left, "the hypervisor goes on behind {name}");
        wait(WHILE);
        let meets_entry = !is_inside && step < RESUMED && !is_short;
        let expected = usize::from(is_inside || meets_entry);
        let level = level();
        check_eq!(
            INITS.load(Ordering::SeqCst),
            expected,
            "INIT that waits {level} for an entry behind {name}"
        );
        let is_over = is_inside || meets_entry;
        check_eq!(is_alive(), is_over, "INIT that waits {level} for VMXOFF behind {name}");
    }
    restart(name);
}

/// Bochs loses an INIT that reaches VMX root operation, so what is seen is told apart.
fn level() -> &'static str {
    if under_hypervisor() { "in a guest" } else { "bare" }
}

/// Has the other CPU do `job`, and waits until it stands behind `step`.
fn begin(job: fn(), step: usize, is_short: bool) {
    STOP.store(step, Ordering::SeqCst);
    AT.store(NOWHERE, Ordering::SeqCst);
    IS_SHORT.store(is_short, Ordering::SeqCst);
    IS_LEAVING.store(false, Ordering::SeqCst);
    IS_WOKEN.store(false, Ordering::SeqCst);
    INITS.store(0, Ordering::SeqCst);
    REGION.store(0, Ordering::SeqCst);
    smp::begin_on(1, job);
    let is_there = wait_until(smp::PATIENCE / 8, || AT.load(Ordering::SeqCst) == step);
    check!(is_there, "the hypervisor comes to the step behind {}", STEPS[step]);
}

fn is_alive() -> bool {
    let before = BEATS.load(Ordering::SeqCst);
    wait(WHILE);
    BEATS.load(Ordering::SeqCst) != before
}

/// The other CPU starts anew, can be a hypervisor again, and what it left is of use here.
fn restart(name: &str) {
    STOP.store(NOWHERE, Ordering::SeqCst);
    apic::init(smp::apic_id(1));
    wait(WHILE);
    smp::forget_arrivals();
    apic::startup(smp::apic_id(1), smp::startup_vector());
    let is_started = wait_until(smp::PATIENCE / 8, || smp::is_ready(1)) && smp::arrived() == 2;
    if check!(is_started, "a start behind {name}") {
        check!(smp::run_on(1, be_a_hypervisor), "a hypervisor again behind {name}");
    }
    let left = REGION.load(Ordering::SeqCst);
    if left != 0 {
        run_once(left);
    }
}

fn be_a_hypervisor() {
    enter_operation();
    run_once(region());
    leave_operation();
}

/// VMCLEARs the VMCS and runs a guest with it.
fn run_once(region: u64) {
    let mut nested = Guest::at(region, verdict::end);
    check_eq!(nested.run().name(), ExitReason::VMCALL.name(), "the guest of a VMCS at {region:#x}");
    nested.clear();
}

/// Parks the other CPU, which no interrupt wakes, and starts it again.
fn go_offline(job: fn()) {
    begin(job, VMPTRST, false);
    wait(WHILE);
    let is_root = job as usize == in_root as fn() as usize;
    apic::init(smp::apic_id(1));
    wait(WHILE);
    if is_root {
        // Asleep in VMX root operation, where INIT waits: an NMI has it leave.
        apic::startup(smp::apic_id(1), smp::startup_vector());
        wait(WHILE);
        check!(!smp::is_ready(1) && smp::arrived() == 2, "a start-up IPI to a CPU asleep in VMX operation");
        check!(!IS_LEAVING.load(Ordering::SeqCst), "INIT to a CPU asleep in VMX operation");
        apic::nmi(smp::apic_id(1));
        let has_left = wait_until(smp::PATIENCE / 8, || IS_LEAVING.load(Ordering::SeqCst));
        check!(has_left, "an NMI wakes a CPU asleep in VMX operation");
        wait(WHILE);
        check!(!is_alive(), "INIT that waits {} for VMXOFF asleep", level());
    }
    restart("sleep");
}

fn outside() {
    enter_operation();
    run_once(region());
    leave_operation();
    AT.store(VMPTRST, Ordering::SeqCst);
    loop {
        sleep_deeply();
    }
}

fn in_root() {
    enter_operation();
    let page = region();
    run_once(page);
    check_all(vmptrld(page), "VMPTRLD");
    AT.store(VMPTRST, Ordering::SeqCst);
    // As sleepers do: what ends the sleep may have been nothing.
    while !IS_WOKEN.load(Ordering::SeqCst) {
        sleep_deeply();
    }
    leave();
}

/// NMI.
fn wake(_: &mut trap::Frame) -> bool {
    IS_WOKEN.store(true, Ordering::SeqCst);
    true
}

/// Its guest sleeps, which INIT ends; then it sleeps itself, outside.
fn in_its_guest() {
    enter_operation();
    let mut nested = Guest::new(sleep_in_guest);
    check_eq!(nested.run().name(), ExitReason::INIT.name(), "INIT to a guest's guest asleep");
    nested.clear();
    leave_operation();
    loop {
        sleep_deeply();
    }
}

extern "C" fn sleep_in_guest() {
    AT.store(VMPTRST, Ordering::SeqCst);
    sleep_deeply();
}
