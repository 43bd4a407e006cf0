//! NMI/INIT/SIPI: a hypervisor that has INIT sent again and again does not step through a PAL of its guest's: INIT waits for the slice.
//! cpus: 2
//! hypapp: trustvisor
//! bare: no
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use guest::canary::Vault;
use guest::cpu::{wait, wait_until};
use guest::pal::{self, PALS};
use guest::run::USER_BASE;
use guest::vmx::prelude::*;
use guest::{acpi, apic, println, smp};

guest!(main);

/// Two instructions each.
const ROUNDS: u64 = 5_000;
const VAULT: Vault = Vault { at: PALS, entry: USER_BASE + PALS };
/// Ticks with two CPUs.
const DELAYS: [u64; 10] = [2_200, 2_220, 2_240, 2_260, 2_280, 2_300, 2_320, 2_340, 2_360, 2_380];

static GO: AtomicU64 = AtomicU64::new(0);
static DELAY: AtomicU64 = AtomicU64::new(0);
static IS_OVER: AtomicBool = AtomicBool::new(false);
static OUTCOME: AtomicU64 = AtomicU64::new(0);

fn main() {
    // The emulator's clock runs on for each CPU that takes its turn, and INIT that comes too early, where the
    // hypervisor runs, is lost there: a delay is so many instructions of the other CPU, however many there are.
    let cpus = u64::from(acpi::processors());
    check!(smp::start_others(1), "two CPUs");
    smp::begin_on(1, hypervisor);
    let target = smp::apic_id(1);
    let mut seen = 0;
    while !IS_OVER.load(Ordering::SeqCst) {
        let go = GO.load(Ordering::SeqCst);
        if go != seen {
            seen = go;
            wait(DELAY.load(Ordering::SeqCst) * cpus / 2);
            apic::init(target);
        }
    }
    check!(wait_until(smp::PATIENCE, || smp::is_ready(1)), "the other CPU ends");
}

fn hypervisor() {
    enter_operation();
    let mut nested = Guest::new(open);
    check_eq!(nested.run(), ExitReason::VMCALL, "opening");
    let _ = nested.has_ended();
    for delay in DELAYS {
        // The first entry carries the parameters in.
        DELAY.store(9_000, Ordering::SeqCst);
        nested.call(hold);
        let (mut stops, mut elsewhere) = (0_u64, 0_u64);
        for _ in 0..20_000 {
            // Another INIT for this run, while there are not too many.
            if stops < 3_000 {
                GO.fetch_add(1, Ordering::SeqCst);
            }
            match nested.run() {
                ExitReason::INIT if nested.read(vmcs::GUEST_RIP) == VAULT.entry => {
                    stops += 1;
                    DELAY.store(delay, Ordering::SeqCst);
                }
                ExitReason::INIT => elsewhere += 1,
                _ => break,
            }
        }
        let outcome = OUTCOME.load(Ordering::SeqCst);
        println!(
            "INIT {delay} ticks behind each entry: {stops} stops within a PAL of {} instructions, {elsewhere} elsewhere, outcome {outcome}",
            2 * ROUNDS
        );
        check!(stops < 20, "a PAL of one slice is stopped {stops} times");
        check_eq!(
            (outcome, elsewhere > 0),
            (1, true),
            "what the call came to, and whether INIT came behind it"
        );
        wait(1_000_000);
    }
    nested.call(close);
    while nested.run() == ExitReason::INIT {}
    leave_operation();
    IS_OVER.store(true, Ordering::SeqCst);
}

extern "C" fn open() {
    pal::bear_offset(true);
    let _ = Vault::open(0);
}

extern "C" fn hold() {
    OUTCOME.store(0, Ordering::SeqCst);
    OUTCOME.store(if VAULT.holds(ROUNDS) { 1 } else { 2 }, Ordering::SeqCst);
}

extern "C" fn close() {
    check_eq!(VAULT.unregister(), 0, "unregistering");
}
