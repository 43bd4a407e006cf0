//! A hypervisor steps through a PAL's call of its guest by the monitor trap flag: it sees the call and what follows.
//! hypapp: trustvisor
//! bare: no
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};

use guest::canary::{self, Vault, is_in_nested};
use guest::pal::{self, PAGE, PALS};
use guest::run::USER_BASE;
use guest::vmx::Ept;
use guest::vmx::prelude::*;
use x86::vmx::controls::PrimaryControls;

guest!(main);

const ROUNDS: u64 = 2000;
const VAULT: Vault = Vault { at: PALS, entry: USER_BASE + PALS };
/// Most steps of the call beside the PAL.
const STEPS: u64 = 2000;

static OUTCOME: AtomicU64 = AtomicU64::new(0);

fn main() {
    enter_operation();
    let ept = Ept::identity();
    let mut nested = Guest::new(open);
    steps(&mut nested, "without EPT");
    nested.use_ept(&ept);
    nested.call(open);
    steps(&mut nested, "with EPT");
    leave_operation();
}

fn steps(nested: &mut Guest, what: &str) {
    ends(nested, what);
    let trap = PrimaryControls::MONITOR_TRAP_FLAG;
    check!(nested.add_primary(trap), "the monitor trap flag");
    nested.call(hold);
    let pages = VAULT.entry..VAULT.entry + 4 * PAGE;
    let (mut count, mut at_entry, mut inside, mut last) = (0, 0, 0, 0);
    let mut behind = 0;
    while nested.run() == ExitReason::MONITOR_TRAP_FLAG && count < STEPS {
        count += 1;
        let (rip, rsp) = (nested.read(vmcs::GUEST_RIP), nested.read(vmcs::GUEST_RSP));
        at_entry += u64::from(rip == VAULT.entry);
        behind += u64::from(last == VAULT.entry && !pages.contains(&rip));
        let is_inside = pages.contains(&rip) && rip != VAULT.entry || pages.contains(&rsp);
        inside += u64::from(is_inside || is_in_nested(&nested.registers));
        last = rip;
    }
    check!(nested.has_ended(), "{what}: ends behind {count} steps");
    check_eq!(OUTCOME.load(Ordering::SeqCst), 1, "{what}: what the call came to");
    check_eq!((at_entry, behind), (1, 1), "{what}: steps to the entry, and from there behind the call");
    check_eq!(inside, 0, "{what}: steps that saw the PAL");
    canary::is_nowhere(what);
    nested.remove(vmcs::PRIMARY_CONTROLS, trap.bits());
    nested.call(close);
    ends(nested, what);
}

fn ends(nested: &mut Guest, what: &str) {
    let reason = nested.run();
    check!(reason == ExitReason::VMCALL && nested.has_ended(), "{what}: ends with {}", reason.name());
}

/// L2.
extern "C" fn open() {
    pal::bear_offset(true);
    let _ = Vault::open(0);
}

extern "C" fn hold() {
    OUTCOME.store(if VAULT.holds(ROUNDS) { 1 } else { 2 }, Ordering::SeqCst);
}

extern "C" fn close() {
    check_eq!(VAULT.unregister(), 0, "unregistering");
}
