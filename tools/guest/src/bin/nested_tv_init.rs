//! NMI/INIT/SIPI: INIT strikes a PAL of a guest's guest: its hypervisor finds the caller at the entry, and may go on.
//! cpus: 2
//! cmdline: pal_ticks=50000
//! hypapp: trustvisor
//! bare: no
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use guest::canary::{self, Vault, is_in_nested};
use guest::cpu::{wait, wait_until};
use guest::pal::{self, PAGE, PALS};
use guest::run::USER_BASE;
use guest::vmx::Ept;
use guest::vmx::prelude::*;
use guest::{apic, smp};

guest!(main);

const ROUNDS: u64 = 100_000;
const ATTEMPTS: u64 = 20;
const VAULT: Vault = Vault { at: PALS, entry: USER_BASE + PALS };

/// Attempts that the guest's guest began, and that were sent an INIT.
static BEGUN: AtomicU64 = AtomicU64::new(0);
static SENT: AtomicU64 = AtomicU64::new(0);
/// A call is to be met that is not gone on with.
static IS_ABANDONED: AtomicBool = AtomicBool::new(false);
static OUTCOME: AtomicU64 = AtomicU64::new(0);
/// INITs that left with the caller at the entry, and elsewhere.
static AT_ENTRY: AtomicU64 = AtomicU64::new(0);
static ELSEWHERE: AtomicU64 = AtomicU64::new(0);

fn main() {
    check!(smp::start_others(1), "two CPUs");
    smp::begin_on(1, hypervisor);
    for attempt in 1..=2 * ATTEMPTS {
        check!(wait_until(smp::PATIENCE, || BEGUN.load(Ordering::SeqCst) == attempt), "attempt {attempt}");
        wait(100_000 + attempt * 7_000);
        apic::init(smp::apic_id(1));
        SENT.store(attempt, Ordering::SeqCst);
    }
    let is_over = wait_until(smp::PATIENCE, || {
        wait(300_000);
        if IS_ABANDONED.load(Ordering::SeqCst) {
            apic::init(smp::apic_id(1));
        }
        smp::is_ready(1)
    });
    check!(is_over, "the other CPU ends");
    let (at_entry, elsewhere) = (AT_ENTRY.load(Ordering::SeqCst), ELSEWHERE.load(Ordering::SeqCst));
    check!(at_entry >= 10, "{at_entry} INITs met the PAL, {elsewhere} something else");
    guest::println!("{at_entry} INITs met the PAL, {elsewhere} something else");
    canary::is_nowhere("after all");
}

/// The other CPU.
fn hypervisor() {
    enter_operation();
    let ept = Ept::identity();
    let mut nested = Guest::new(open);
    finishes(&mut nested, "opening the vault");
    for attempt in 1..=2 * ATTEMPTS {
        if attempt == ATTEMPTS {
            nested.call(close);
            finishes(&mut nested, "closing the vault");
            nested.use_ept(&ept);
            nested.call(open);
            finishes(&mut nested, "opening the vault with EPT");
        }
        nested.call(hold);
        finishes(&mut nested, "a call that INIT strikes");
        check_eq!(OUTCOME.load(Ordering::SeqCst), 1, "what the call came to");
        // An INIT that came late waits for the next entry.
        check!(wait_until(smp::PATIENCE, || SENT.load(Ordering::SeqCst) == attempt), "the INIT");
    }
    nested.call(close);
    finishes(&mut nested, "closing the vault with EPT");
    abandoned(&mut nested, &ept);
    leave_operation();
}

/// Runs the guest's guest to its end, behind each INIT again.
fn finishes(nested: &mut Guest, what: &str) {
    loop {
        match nested.run() {
            ExitReason::INIT => look(nested),
            reason => {
                check!(nested.has_ended(), "{what}: ends with {}", reason.name());
                return;
            }
        }
    }
}

/// What the hypervisor finds at an INIT is nothing of the PAL's.
fn look(nested: &Guest) {
    let (rip, rsp) = (nested.read(vmcs::GUEST_RIP), nested.read(vmcs::GUEST_RSP));
    let pages = VAULT.entry..VAULT.entry + 4 * PAGE;
    let registers = &nested.registers;
    check!(!is_in_nested(registers), "registers behind INIT: {registers:x?}");
    check!(!pages.contains(&rsp), "the stack pointer behind INIT: {rsp:#x}");
    check_eq!(nested.read(vmcs::IDT_VECTORING_INFORMATION) >> 31, 0, "nothing was being delivered");
    if rip != VAULT.entry {
        check!(!pages.contains(&rip), "INIT finds the PAL at {rip:#x}");
        ELSEWHERE.fetch_add(1, Ordering::SeqCst);
        return;
    }
    let wanted = VAULT.registers(ROUNDS);
    let caller = [registers.rdi, registers.rsi, registers.rdx, registers.rcx, registers.r15];
    check_eq!(caller, [wanted.rdi, wanted.rsi, wanted.rdx, wanted.rcx, wanted.r15], "the caller's registers");
    check_eq!(nested.read(vmcs::GUEST_CR3), guest::cpu::read_cr3(), "the caller's page tables");
    check_eq!(nested.read(vmcs::GUEST_IDTR_LIMIT), 0xfff, "the caller's descriptor table");
    AT_ENTRY.fetch_add(1, Ordering::SeqCst);
}

/// A call that its hypervisor does not go on with can be given up, and leaves nothing.
fn abandoned(nested: &mut Guest, ept: &Ept) {
    nested.call(open);
    finishes(nested, "opening the vault once more");
    IS_ABANDONED.store(true, Ordering::SeqCst);
    let meets = |nested: &mut Guest| {
        nested.call(hold);
        nested.run() == ExitReason::INIT && nested.read(vmcs::GUEST_RIP) == VAULT.entry
    };
    check!((0..ATTEMPTS).any(|_| meets(nested)), "an INIT meets the PAL");
    IS_ABANDONED.store(false, Ordering::SeqCst);
    look(nested);
    nested.clear();
    // The last one may be on its way.
    wait(1_000_000);
    let mut other = Guest::new(close);
    other.use_ept(ept);
    finishes(&mut other, "closing the vault of a call without an end");
    canary::is_nowhere("behind a call without an end");
}

/// L2.
extern "C" fn open() {
    pal::bear_offset(true);
    let _ = Vault::open(0);
}

extern "C" fn hold() {
    BEGUN.fetch_add(1, Ordering::SeqCst);
    OUTCOME.store(if VAULT.holds(ROUNDS) { 1 } else { 2 }, Ordering::SeqCst);
}

extern "C" fn close() {
    check_eq!(VAULT.unregister(), 0, "unregistering");
}
