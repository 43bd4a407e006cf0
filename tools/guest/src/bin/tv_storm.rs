//! Interrupts and NMIs storm a CPU inside a PAL: it comes to its end, and none of them sees it.
//! cpus: 2
//! cmdline: pal_ticks=20000
//! hypapp: trustvisor
//! bare: no
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};

use guest::canary::{self, Vault, is_in_frame};
use guest::cpu::wait;
use guest::pal::{IF, PAGE, PALS};
use guest::run::USER_BASE;
use guest::trap::{Frame, handle};
use guest::{apic, check, check_eq, guest, smp};

guest!(main);

const VECTORS: [u8; 3] = [0x40, 0x71, 0xe2];
const ROUNDS: u64 = 300_000;
const VAULT: Vault = Vault { at: PALS, entry: USER_BASE + PALS };
static OUTCOME: AtomicU64 = AtomicU64::new(0);
static INTERRUPTS: AtomicU64 = AtomicU64::new(0);
static NMIS: AtomicU64 = AtomicU64::new(0);
/// Of both, those that met the PAL's caller at the entry, and those that saw anything inside.
static AT_ENTRY: AtomicU64 = AtomicU64::new(0);
static INSIDE: AtomicU64 = AtomicU64::new(0);

fn main() {
    handle(2, Some(nmi));
    for vector in VECTORS {
        handle(vector, Some(interrupt));
    }
    check!(smp::start_others(1), "two CPUs");
    let _ = Vault::open(0);
    for (what, storm) in [("interrupts", interrupts as fn(u32)), ("NMIs", nmis), ("both", both)] {
        storms(what, storm);
    }
    check_eq!(VAULT.unregister(), 0, "unregistering");
}

fn storms(what: &str, storm: fn(u32)) {
    for counter in [&INTERRUPTS, &NMIS, &AT_ENTRY, &OUTCOME] {
        counter.store(0, Ordering::SeqCst);
    }
    smp::begin_on(1, hold);
    let target = smp::apic_id(1);
    let mut sent: u64 = 0;
    while !smp::is_ready(1) && sent < 100_000 {
        storm(target);
        sent += 1;
        // Time for the handlers, or the CPU would never come to its program, PAL or not.
        wait(4000);
    }
    check_eq!(OUTCOME.load(Ordering::SeqCst), 1, "{what}: the PAL's call came to its end under {sent}");
    let arrived = INTERRUPTS.load(Ordering::SeqCst) + NMIS.load(Ordering::SeqCst);
    let at_entry = AT_ENTRY.load(Ordering::SeqCst);
    check!(at_entry > 5, "{what}: {at_entry} of {arrived} that arrived met the PAL, {sent} were sent");
    check_eq!(INSIDE.load(Ordering::SeqCst), 0, "{what}: handlers that saw the PAL");
    canary::is_nowhere(what);
}

fn hold() {
    OUTCOME.store(if VAULT.holds(ROUNDS) { 1 } else { 2 }, Ordering::SeqCst);
}

fn interrupts(target: u32) {
    for vector in VECTORS {
        apic::interrupt(target, vector);
    }
}

fn nmis(target: u32) {
    apic::nmi(target);
}

fn both(target: u32) {
    interrupts(target);
    nmis(target);
}

fn interrupt(frame: &mut Frame) -> bool {
    INTERRUPTS.fetch_add(1, Ordering::SeqCst);
    look(frame);
    apic::end_of_interrupt();
    true
}

fn nmi(frame: &mut Frame) -> bool {
    NMIS.fetch_add(1, Ordering::SeqCst);
    look(frame);
    true
}

fn look(frame: &Frame) {
    let is_at_entry = frame.rip == VAULT.entry;
    if is_at_entry {
        AT_ENTRY.fetch_add(1, Ordering::SeqCst);
    }
    let pages = VAULT.entry..VAULT.entry + 4 * PAGE;
    let is_inside = pages.contains(&frame.rip) && !is_at_entry || pages.contains(&frame.rsp);
    let is_open = is_at_entry && frame.rflags & IF == 0;
    if is_inside || is_open || is_in_frame(frame) {
        INSIDE.fetch_add(1, Ordering::SeqCst);
    }
}
