//! NMIs: delivered once each, held back until IRET, kept one deep, to this CPU and to another, awake or asleep.
//! cpus: 2
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use guest::cpu::{cpuid, rdmsr, wait, wait_until};
use guest::trap::{Frame, handle};
use guest::{Mode, Regs, apic, check, check_eq, cpu, guest, run, smp, snippet};
use x86::msr::Msr;

guest!(main);

static COUNT: AtomicUsize = AtomicUsize::new(0);
static NESTED: AtomicUsize = AtomicUsize::new(0);
static INSIDE: AtomicBool = AtomicBool::new(false);
static STOP: AtomicBool = AtomicBool::new(false);

fn main() {
    handle(2, Some(count));
    to_self();
    blocked_until_iret();
    check!(smp::start_others(1), "start of the other CPU");
    let target = smp::apic_id(1);
    let jobs: [(&str, fn()); 4] =
        [("spins", spin), ("executes CPUID", leave_often), ("faults", fault_often), ("sleeps", sleep_often)];
    for (what, job) in jobs {
        STOP.store(false, Ordering::SeqCst);
        smp::begin_on(1, job);
        wait(100_000);
        storm(what, target);
        STOP.store(true, Ordering::SeqCst);
        // A last one, should it sleep.
        apic::nmi(target);
        check!(wait_until(smp::PATIENCE, || smp::is_ready(1)), "the other CPU, which {what}, stops");
    }
    both_ways(target);
}

fn to_self() {
    for round in 1..=100 {
        apic::nmi(apic::id());
        check!(wait_until(1_000_000, || COUNT.load(Ordering::SeqCst) >= round), "NMI {round} to itself");
        check_eq!(COUNT.load(Ordering::SeqCst), round, "NMIs to itself");
    }
}

/// SDM, "Handling Multiple NMIs": none before the handler's IRET, and one is kept.
fn blocked_until_iret() {
    for sent in 1..=3 {
        COUNT.store(0, Ordering::SeqCst);
        NESTED.store(0, Ordering::SeqCst);
        handle(
            2,
            Some(match sent {
                1 => again_1,
                2 => again_2,
                _ => again_3,
            }),
        );
        apic::nmi(apic::id());
        wait(200_000);
        check_eq!(NESTED.load(Ordering::SeqCst), 0, "NMIs within the handler");
        check_eq!(COUNT.load(Ordering::SeqCst), 2, "NMIs after {sent} more within the handler");
    }
    handle(2, Some(count));
    COUNT.store(0, Ordering::SeqCst);
    check_eq!(COUNT.load(Ordering::SeqCst), 0, "late NMIs");
    // IRET ends the blocking whatever it returns from, here from a breakpoint within the handler.
    NESTED.store(0, Ordering::SeqCst);
    handle(2, Some(again_with_iret));
    apic::nmi(apic::id());
    wait(200_000);
    check_eq!(
        (COUNT.load(Ordering::SeqCst), NESTED.load(Ordering::SeqCst)),
        (2, 1),
        "NMIs with IRET in between"
    );
    handle(2, Some(count));
    COUNT.store(0, Ordering::SeqCst);
}

fn again_with_iret(frame: &mut Frame) -> bool {
    if INSIDE.swap(true, Ordering::SeqCst) {
        NESTED.fetch_add(1, Ordering::SeqCst);
        return count(frame);
    }
    apic::nmi(apic::id());
    // A snippet begins with an IRET.
    let _ = run(Mode::Kernel64, snippet!("nop", "nop", "nop"), &mut Regs::default());
    INSIDE.store(false, Ordering::SeqCst);
    count(frame)
}

fn again_1(frame: &mut Frame) -> bool {
    again(frame, 1)
}

fn again_2(frame: &mut Frame) -> bool {
    again(frame, 2)
}

fn again_3(frame: &mut Frame) -> bool {
    again(frame, 3)
}

fn again(frame: &mut Frame, times: usize) -> bool {
    if INSIDE.swap(true, Ordering::SeqCst) {
        NESTED.fetch_add(1, Ordering::SeqCst);
    }
    if COUNT.load(Ordering::SeqCst) == 0 {
        for _ in 0..times {
            apic::nmi(apic::id());
            // Instructions that leave the guest must not unblock; the wait lets a wrong one through.
            let _ = cpuid(0, 0);
            wait(20_000);
        }
    }
    INSIDE.store(false, Ordering::SeqCst);
    count(frame)
}

fn storm(what: &str, target: u32) {
    COUNT.store(0, Ordering::SeqCst);
    for sent in 1..=300 {
        apic::nmi(target);
        let arrived = wait_until(smp::PATIENCE, || COUNT.load(Ordering::SeqCst) >= sent);
        if !check_holds(arrived, what, sent) {
            return;
        }
    }
    wait(100_000);
    check_eq!(COUNT.load(Ordering::SeqCst), 300, "NMIs to a CPU that {what}");
    // Without waiting some merge, but not all are lost and none is made up.
    COUNT.store(0, Ordering::SeqCst);
    for _ in 0..1000 {
        apic::nmi(target);
    }
    wait(1_000_000);
    let count = COUNT.load(Ordering::SeqCst);
    check!((1..=1000).contains(&count), "{count} of 1000 NMIs at once to a CPU that {what}");
}

fn check_holds(arrived: bool, what: &str, sent: usize) -> bool {
    check::holds(arrived, format_args!("NMI {sent} reaches a CPU that {what}"))
}

/// Each CPU sends to the other while both are in and out of handlers.
fn both_ways(target: u32) {
    COUNT.store(0, Ordering::SeqCst);
    STOP.store(false, Ordering::SeqCst);
    smp::begin_on(1, send_back);
    for _ in 0..300 {
        apic::nmi(target);
        let _ = cpuid(0, 0);
    }
    check!(wait_until(smp::PATIENCE, || smp::is_ready(1)), "the other CPU has sent its NMIs");
    wait(1_000_000);
    let count = COUNT.load(Ordering::SeqCst);
    check!((2..=600).contains(&count), "{count} NMIs of 600 both ways");
}

fn send_back() {
    for _ in 0..300 {
        apic::nmi(0);
        let _ = rdmsr(Msr(0x1234));
    }
}

fn count(_: &mut Frame) -> bool {
    COUNT.fetch_add(1, Ordering::SeqCst);
    true
}

fn spin() {
    while !STOP.load(Ordering::SeqCst) {
        cpu::pause();
    }
}

fn leave_often() {
    while !STOP.load(Ordering::SeqCst) {
        let _ = cpuid(0, 0);
    }
}

fn fault_often() {
    while !STOP.load(Ordering::SeqCst) {
        let _ = rdmsr(Msr(0x1234));
    }
}

fn sleep_often() {
    while !STOP.load(Ordering::SeqCst) {
        cpu::sleep();
    }
}
