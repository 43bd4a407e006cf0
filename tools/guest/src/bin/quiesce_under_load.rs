//! The rendezvous under load: each finds all other CPUs standing still, and its NMIs never reach the guest.
//! cpus: 3
//! hypapp: quiesce
//! bare: no
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use guest::cpu::{cpuid, pause, rdmsr, wait_until};
use guest::trap::{Frame, handle};
use guest::{Mode, Regs, apic, check, check_eq, guest, run, smp, snippet};
use x86::msr::Msr;

guest!(main);

const SELECTOR: u64 = 0x4455_0002;
const CALLS: u32 = 100;
static DONE: AtomicU32 = AtomicU32::new(0);
static MOVED: AtomicU32 = AtomicU32::new(0);
static NMIS: AtomicU32 = AtomicU32::new(0);
static SENT: AtomicU32 = AtomicU32::new(0);
static STOP: AtomicBool = AtomicBool::new(false);

/// What a CPU does until it is told to stop.
type Work = fn();

fn main() {
    handle(2, Some(count));
    check!(smp::start_each(2), "three CPUs");
    let pairs: [(&str, Work, Work); 4] = [
        ("leaving the guest, computing", leave, compute),
        ("calling, calling", call, call),
        ("faulting, leaving the guest", fault, leave),
        // With one caller alone: where both NMIs arrive at once, as between calls without a pause they always
        // may, the processor makes them one.
        ("taking NMIs of its own, computing", take_nmis, compute),
    ];
    for (what, first, second) in pairs {
        STOP.store(false, Ordering::SeqCst);
        let before = DONE.load(Ordering::SeqCst);
        smp::begin_on(1, first);
        smp::begin_on(2, second);
        call();
        check!(DONE.load(Ordering::SeqCst) >= before + CALLS, "calls while {what}");
        STOP.store(true, Ordering::SeqCst);
        let is_over = wait_until(smp::PATIENCE, || smp::is_ready(1) && smp::is_ready(2));
        check!(is_over, "both CPUs end, {what}");
    }
    check_eq!(MOVED.load(Ordering::SeqCst), 0, "calls that saw another CPU move");
    let (taken, sent) = (NMIS.load(Ordering::SeqCst), SENT.load(Ordering::SeqCst));
    check!(sent > 0 && taken > 0 && taken <= sent, "NMIs: {taken} taken, {sent} sent by the guest");
}

fn call() {
    for _ in 0..CALLS {
        let mut regs = Regs { rbx: SELECTOR, ..Regs::default() };
        if run(Mode::Kernel64, snippet!("vmcall"), &mut regs).is_err() || regs.rax != 0 {
            MOVED.fetch_add(1, Ordering::SeqCst);
        }
        DONE.fetch_add(1, Ordering::SeqCst);
    }
}

fn leave() {
    while !STOP.load(Ordering::SeqCst) {
        let _ = cpuid(0, 0);
    }
}

fn compute() {
    while !STOP.load(Ordering::SeqCst) {
        pause();
    }
}

fn fault() {
    while !STOP.load(Ordering::SeqCst) {
        let _ = rdmsr(Msr(0x4000_1234));
    }
}

fn take_nmis() {
    while !STOP.load(Ordering::SeqCst) {
        SENT.fetch_add(1, Ordering::SeqCst);
        apic::nmi(apic::id());
    }
}

fn count(_: &mut Frame) -> bool {
    NMIS.fetch_add(1, Ordering::SeqCst);
    true
}
