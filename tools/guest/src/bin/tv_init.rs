//! INIT strikes a CPU inside a PAL: the PAL is over, nothing of it is left, and the CPU starts again.
//! cpus: 2
//! hypapp: trustvisor
//! bare: no
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};

use guest::canary::{self, Vault, call};
use guest::cpu::{wait, wait_until};
use guest::pal::{CF, PALS};
use guest::run::USER_BASE;
use guest::{Mode, apic, check, check_eq, guest, run, smp};
use trustvisor::call::Failure;

guest!(main);

const ROUNDS: u64 = 100_000_000;
const ATTEMPTS: usize = 10;
/// What the other CPU's own call came to.
static ANSWER: AtomicU64 = AtomicU64::new(0);

fn main() {
    check!(smp::start_others(1), "two CPUs");
    let target = smp::apic_id(1);
    // Between two slices of its time the CPU is outside: then the call is suspended, and INIT finds nothing.
    let has_struck = (0..ATTEMPTS).any(|_| strikes(target));
    check!(has_struck, "INIT struck a CPU inside a PAL");
    let vault = Vault::open(0);
    check!(smp::run_on(1, ask), "the CPU that was struck calls a PAL");
    check_eq!(ANSWER.load(Ordering::SeqCst), 1, "and gets its answer");
    check_eq!(vault.unregister(), 0, "unregistering");
}

/// Whether INIT met CPU 1 inside its PAL.
fn strikes(target: u32) -> bool {
    let vault = Vault::open(0);
    smp::begin_on(1, hold);
    wait(200_000);
    check!(!smp::is_ready(1), "the other CPU runs its PAL");
    apic::init(target);
    wait(200_000);
    canary::is_nowhere("after INIT");
    let answer = vault.answer();
    let is_dead = answer == Ok((Failure::DEAD.0, CF));
    check!(is_dead || answer == Ok((Failure::BUSY.0, CF)), "the PAL's answer behind INIT: {answer:x?}");
    check_eq!(vault.unregister(), 0, "unregistering");
    canary::is_nowhere("after unregistering");
    smp::forget_arrivals();
    apic::startup(target, smp::startup_vector());
    check!(wait_until(smp::PATIENCE, || smp::arrived() > 1 && smp::is_ready(1)), "the CPU starts again");
    let state = smp::entry_state();
    let registers = [state.eax, state.ebx, state.ecx, state.esi, state.edi, state.ebp, state.esp];
    check_eq!(registers, [0; 7], "registers behind INIT");
    is_dead
}

fn hold() {
    let _ = run(Mode::User64, call(), &mut vault().registers(ROUNDS));
}

fn ask() {
    ANSWER.store(u64::from(vault().knows()), Ordering::SeqCst);
}

fn vault() -> Vault {
    Vault { at: PALS, entry: USER_BASE + PALS }
}
