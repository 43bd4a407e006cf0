//! Two CPUs: both run PALs at once, one takes the other's pages, calls its PAL, and storms it with NMIs.
//! cpus: 2
//! cmdline: pal_ticks=100000
//! hypapp: trustvisor
//! bare: no
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};

use guest::cpu::{wait, wait_until};
use guest::memory::{read64, write64};
use guest::pal;
use guest::pal::prelude::*;
use guest::trap::{Frame, handle};
use guest::{Regs, apic, run, smp};
use trustvisor::call::Failure;

guest!(main);

const MODE: Mode = Mode::User64;
const INTEGERS: [(ParameterType, u64); 2] = [(ParameterType::Integer, 0); 2];
const ROUNDS: u64 = 300_000;
/// What the other CPU's call came to.
static RESULT: AtomicU64 = AtomicU64::new(0);
static CARRY: AtomicU64 = AtomicU64::new(0);
static NMIS: AtomicU64 = AtomicU64::new(0);
/// Number of the PAL that the other CPU calls.
static PAL: AtomicU64 = AtomicU64::new(0);

fn main() {
    handle(2, Some(count));
    check!(smp::start_others(1), "two CPUs");
    let pals = [0, 1].map(|number| Pal::place(MODE, number, counter()));
    for pal in &pals {
        check_eq!(pal.register(&INTEGERS), 0, "registering");
    }
    each_runs_its_own(&pals[0]);
    one_at_a_time(&pals[1]);
    in_turn(&pals[1]);
    nmis_wait(&pals[1]);
    others_register_meanwhile(&pals[1]);
    a_write_stops_it(&pals[1]);
    check_eq!(pals[0].unregister(), 0, "unregistering");
}

fn call_on_other(number: u64) {
    RESULT.store(0, Ordering::SeqCst);
    PAL.store(number, Ordering::SeqCst);
    smp::begin_on(1, call_there);
}

fn call_there() {
    let mut regs = Regs {
        rdi: ROUNDS,
        rsi: 7,
        r15: pal::user(MODE, pal::PALS + PAL.load(Ordering::SeqCst) * 4 * PAGE),
        rflags: pal::IF,
        ..Regs::default()
    };
    let called = run(MODE, snippet!("call r15"), &mut regs);
    CARRY.store(if called.is_ok() { regs.rflags & CF } else { 99 }, Ordering::SeqCst);
    RESULT.store(regs.rax, Ordering::SeqCst);
}

fn finished(what: &str) -> (u64, u64) {
    check!(wait_until(smp::PATIENCE, || smp::is_ready(1)), "{what}: the other CPU comes back");
    (RESULT.load(Ordering::SeqCst), CARRY.load(Ordering::SeqCst))
}

fn each_runs_its_own(own: &Pal) {
    call_on_other(1);
    let calls =
        (0..20).filter(|_| own.call([10, 3, 0, 0, 0, 0, 0, 0, 0, 0]).map(|regs| regs.rax) == Ok(30)).count();
    check_eq!(calls, 20, "calls while the other CPU runs another PAL");
    check_eq!(finished("both at once"), (7 * ROUNDS, 0), "the other CPU's result");
}

fn one_at_a_time(pal: &Pal) {
    call_on_other(1);
    wait(200_000);
    let busy = pal.call([1, 1, 0, 0, 0, 0, 0, 0, 0, 0]).map(|regs| (regs.eax(), regs.rflags & CF));
    let unregistered = pal.unregister();
    let is_over = smp::is_ready(1);
    check_eq!(finished("busy"), (7 * ROUNDS, 0), "the call that was first");
    if !is_over {
        check_eq!(busy, Ok((Failure::BUSY.0, CF)), "a call meanwhile");
        check_eq!(unregistered, Status::BUSY.0, "unregistering meanwhile");
    }
    check!(!is_over, "the other CPU was still at it");
    check_eq!(pal.call([1, 1, 0, 0, 0, 0, 0, 0, 0, 0]).map(|regs| regs.rax), Ok(1), "a call behind it");
}

/// The same PAL from this CPU and the other, one call after another.
fn in_turn(pal: &Pal) {
    for round in 1..6 {
        call_on_other(1);
        check_eq!(finished("in turn"), (7 * ROUNDS, 0), "round {round}: the other CPU's call");
        let here = pal.call([round, 3, 0, 0, 0, 0, 0, 0, 0, 0]).map(|regs| (regs.rax, regs.rflags & CF));
        check_eq!(here, Ok((3 * round, 0)), "round {round}: this CPU's");
    }
}

fn nmis_wait(pal: &Pal) {
    NMIS.store(0, Ordering::SeqCst);
    call_on_other(1);
    let mut sent = 0;
    while !smp::is_ready(1) && sent < 1000 {
        apic::nmi(smp::apic_id(1));
        sent += 1;
        wait(20_000);
    }
    check_eq!(finished("NMIs"), (7 * ROUNDS, 0), "the result under {sent} NMIs");
    let seen = NMIS.load(Ordering::SeqCst);
    check!(sent > 5 && seen > 2 && seen <= sent, "{seen} of {sent} NMIs were delivered");
    check_eq!(pal.call([2, 2, 0, 0, 0, 0, 0, 0, 0, 0]).map(|regs| regs.rax), Ok(4), "a call behind them");
}

fn others_register_meanwhile(pal: &Pal) {
    call_on_other(1);
    let third = Pal { at: pal.at + 4 * PAGE, mode: MODE };
    let third = Pal::place(third.mode, 2, counter());
    let mut rounds = 0;
    while !smp::is_ready(1) && rounds < 1000 {
        let (registered, unregistered) = (third.register(&INTEGERS), third.unregister());
        if (registered, unregistered) != (0, 0) {
            check!(false, "round {rounds}: status {registered} and {unregistered}");
            break;
        }
        rounds += 1;
    }
    check_eq!(finished("registrations"), (7 * ROUNDS, 0), "the result under {rounds} registrations");
    check!(rounds > 2, "{rounds} registrations meanwhile");
}

fn a_write_stops_it(pal: &Pal) {
    call_on_other(1);
    wait(200_000);
    let is_over = smp::is_ready(1);
    check_eq!(write64(pal.data(), 1), Ok(()), "a write to the PAL's data");
    check_eq!((read64(pal.data()), read64(pal.data() + 8)), (Ok(1), Ok(0)), "nothing else is there");
    check!(!is_over, "the other CPU was still at it");
    check_eq!(finished("revocation"), (Failure::REVOKED.0.into(), CF), "the call that was stopped");
    check_eq!((pal.unregister(), pal.unregister()), (0, Status::NOT_REGISTERED.0), "unregistering");
}

fn count(_frame: &mut Frame) -> bool {
    NMIS.fetch_add(1, Ordering::SeqCst);
    true
}

/// Adds RSI to 0, RDI times, and takes its time.
fn counter() -> Snippet {
    snippet!("xor eax, eax", "2: add rax, rsi", "pause", "dec rdi", "jnz 2b", "ret")
}
