//! NMI/INIT/SIPI: NMIs strike a PAL of a guest's guest: they are whose its hypervisor says, and nobody sees the PAL.
//! cpus: 2
//! cmdline: pal_ticks=20000
//! hypapp: trustvisor
//! bare: no
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use guest::canary::{self, Vault, is_in_frame, is_in_nested};
use guest::cpu::{iret, wait, wait_until};
use guest::pal::{self, PAGE, PALS};
use guest::run::USER_BASE;
use guest::trap::{Frame, handle};
use guest::vmx::Ept;
use guest::vmx::nmi::is_nmi_exit;
use guest::vmx::prelude::*;
use guest::{apic, smp};
use x86::vmx::controls::PinBasedControls;

guest!(main);

const ROUNDS: u64 = 300_000;
/// Ticks from one NMI to the next.
const PERIOD: u64 = 100_000;
const VAULT: Vault = Vault { at: PALS, entry: USER_BASE + PALS };
const BLOCKING: u32 = 1 << 3;

static IS_STORMING: AtomicBool = AtomicBool::new(false);
static IS_OVER: AtomicBool = AtomicBool::new(false);
static OUTCOME: AtomicU64 = AtomicU64::new(0);
/// NMIs that left for the hypervisor, and that the guest's guest took; of both, those that met the PAL.
static EXITS: AtomicU64 = AtomicU64::new(0);
static TAKEN: AtomicU64 = AtomicU64::new(0);
static MET: AtomicU64 = AtomicU64::new(0);
/// Those that saw anything of the PAL.
static INSIDE: AtomicU64 = AtomicU64::new(0);

fn main() {
    handle(2, Some(nmi));
    check!(smp::start_others(1), "two CPUs");
    smp::begin_on(1, hypervisor);
    while !IS_OVER.load(Ordering::SeqCst) {
        if IS_STORMING.load(Ordering::SeqCst) {
            apic::nmi(smp::apic_id(1));
        }
        wait(PERIOD);
    }
    check!(wait_until(smp::PATIENCE, || smp::is_ready(1)), "the other CPU ends");
}

/// The other CPU.
fn hypervisor() {
    enter_operation();
    let ept = Ept::identity();
    let exiting = PinBasedControls::NMI_EXITING;
    for has_ept in [false, true] {
        for (controls, interruptibility, what) in [
            (PinBasedControls::empty(), 0, "no NMI exiting"),
            (exiting, 0, "NMI exiting"),
            (exiting | PinBasedControls::VIRTUAL_NMIS, 0, "virtual NMIs"),
            (exiting | PinBasedControls::VIRTUAL_NMIS, BLOCKING, "virtual NMIs, blocked"),
        ] {
            let mut nested = Guest::new(open);
            check!(nested.add_pin(controls), "{what}: pin-based controls");
            if has_ept {
                nested.use_ept(&ept);
            }
            storms(&mut nested, interruptibility, what);
            nested.clear();
        }
    }
    leave_operation();
    IS_OVER.store(true, Ordering::SeqCst);
}

fn storms(nested: &mut Guest, interruptibility: u32, what: &str) {
    finishes(nested, what);
    for counter in [&EXITS, &TAKEN, &MET, &INSIDE, &OUTCOME] {
        counter.store(0, Ordering::SeqCst);
    }
    nested.call(hold);
    nested.write(vmcs::GUEST_INTERRUPTIBILITY, interruptibility);
    IS_STORMING.store(true, Ordering::SeqCst);
    finishes(nested, what);
    IS_STORMING.store(false, Ordering::SeqCst);
    // One may be on its way.
    wait(PERIOD);
    check_eq!(OUTCOME.load(Ordering::SeqCst), 1, "{what}: what the call came to");
    let [exits, taken, met, inside] =
        [&EXITS, &TAKEN, &MET, &INSIDE].map(|count| count.load(Ordering::SeqCst));
    guest::println!("{what}: {exits} exits, {taken} taken, {met} met the PAL");
    check!(met > 5, "{what}: {met} met the PAL");
    check_eq!(inside, 0, "{what}: NMIs that saw the PAL");
    if what.starts_with("no") {
        check_eq!(exits, 0, "{what}: exits");
    } else {
        check_eq!(taken, 0, "{what}: NMIs that the guest's guest took");
    }
    canary::is_nowhere(what);
    nested.write(vmcs::GUEST_INTERRUPTIBILITY, 0);
    nested.call(close);
    finishes(nested, what);
}

/// Runs the guest's guest to its end, behind each NMI again.
fn finishes(nested: &mut Guest, what: &str) {
    loop {
        let reason = nested.run();
        if !is_nmi_exit(nested, reason) {
            check!(reason == ExitReason::VMCALL && nested.has_ended(), "{what}: ends with {}", reason.name());
            return;
        }
        EXITS.fetch_add(1, Ordering::SeqCst);
        see(nested.read(vmcs::GUEST_RIP), nested.read(vmcs::GUEST_RSP), is_in_nested(&nested.registers));
        // The exit left this CPU blocked.
        iret();
    }
}

/// What an NMI finds.
fn see(rip: u64, rsp: u64, is_known: bool) {
    let pages = VAULT.entry..VAULT.entry + 4 * PAGE;
    let is_inside = pages.contains(&rip) && rip != VAULT.entry || pages.contains(&rsp);
    if rip == VAULT.entry {
        MET.fetch_add(1, Ordering::SeqCst);
    }
    if is_inside || is_known {
        INSIDE.fetch_add(1, Ordering::SeqCst);
    }
}

fn nmi(frame: &mut Frame) -> bool {
    // From ring 3 of the guest's guest, or from its own stack in ring 0.
    if frame.cs & 3 == 3 || smp::is_nested_stack(frame.rsp) {
        TAKEN.fetch_add(1, Ordering::SeqCst);
    }
    see(frame.rip, frame.rsp, is_in_frame(frame));
    true
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
