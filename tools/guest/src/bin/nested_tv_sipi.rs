//! NMI/INIT/SIPI: a hypervisor that INIT or an NMI strikes on its way to waiting for a start-up IPI has no translation of
//! a live PAL left.
//! cpus: 2
//! hypapp: trustvisor
//! bare: no
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use guest::cpu::{pause, wait, wait_until};
use guest::memory::{read64, write64};
use guest::pal;
use guest::pal::prelude::*;
use guest::vmx::nmi;
use guest::vmx::prelude::*;
use guest::vmx::verdict::Entry;
use guest::{apic, canary, smp};
use x86::vmx::controls::PinBasedControls;

guest!(main);

const INTEGERS: [(ParameterType, u64); 3] = [(ParameterType::Integer, 0); 3];
const KEY: u64 = 0x5ec2_e7c0_de00_5ec2;
const HIDDEN: u64 = 0x1234_5678_9abc_def0;
/// The PAL was revoked.
const DEAD: u64 = 0xffff_ff07;
const STORE: u64 = 1;
const LOAD: u64 = 2;

static PAGE: AtomicU64 = AtomicU64::new(0);
static PHASE: AtomicU32 = AtomicU32::new(0);
static REASON: AtomicU32 = AtomicU32::new(0xffff_ffff);
static IS_OVER: AtomicBool = AtomicBool::new(false);
static GO: AtomicBool = AtomicBool::new(false);
static IS_INIT: AtomicBool = AtomicBool::new(false);
static WRITE: AtomicBool = AtomicBool::new(false);
static LAST: AtomicU64 = AtomicU64::new(0);

fn main() {
    check!(smp::start_others(1), "two CPUs");
    // By an INIT that waits, then by an NMI that waits.
    attack(by_init);
    attack(by_nmi);
}

fn attack(job: fn()) {
    let pal = Pal::place(Mode::User64, 0, canary::telling());
    PAGE.store(pal.data(), Ordering::SeqCst);
    PHASE.store(0, Ordering::SeqCst);
    IS_OVER.store(false, Ordering::SeqCst);
    GO.store(false, Ordering::SeqCst);
    WRITE.store(false, Ordering::SeqCst);
    let is_init = job as usize == by_init as fn() as usize;
    IS_INIT.store(is_init, Ordering::SeqCst);
    let name = if is_init { "INIT" } else { "NMI" };
    smp::begin_on(1, job);
    check!(wait_until(smp::PATIENCE, || PHASE.load(Ordering::SeqCst) == 1), "in root operation");
    if is_init {
        apic::init(smp::apic_id(1));
    } else {
        apic::nmi(smp::apic_id(1));
    }
    wait(300_000);
    GO.store(true, Ordering::SeqCst);
    let has_left = wait_until(smp::PATIENCE / 4, || PHASE.load(Ordering::SeqCst) == 2);
    check!(!has_left, "{name}: L1 goes on, exit {:#x}", REASON.load(Ordering::SeqCst));
    if !has_left {
        apic::startup(smp::apic_id(1), 0x9a);
        check!(wait_until(smp::PATIENCE, || PHASE.load(Ordering::SeqCst) == 2), "start-up IPI");
    }
    wait(500_000);
    check_eq!(pal.register(&INTEGERS), 0, "registering");
    check_eq!(ask(&pal, STORE), Some(0), "storing");
    wait(500_000);
    check!(
        LAST.load(Ordering::SeqCst) != KEY ^ HIDDEN,
        "{name}: the other CPU reads the PAL's secret: {:#x}",
        LAST.load(Ordering::SeqCst)
    );
    WRITE.store(true, Ordering::SeqCst);
    wait(500_000);
    // The write is a violation, which revokes.
    check_eq!(ask(&pal, LOAD), Some(DEAD), "{name}: the PAL is dead");
    let _ = pal.unregister();
    IS_OVER.store(true, Ordering::SeqCst);
    check!(wait_until(smp::PATIENCE, || smp::is_ready(1)), "the other CPU ends");
}

fn ask(pal: &Pal, what: u64) -> Option<u64> {
    let data = pal.entry() + pal::PAGE;
    let regs = pal.call([what, HIDDEN, data, 0, 0, 0, 0, 0, 0, 0]).ok()?;
    Some(regs.rax)
}

fn by_init() {
    enter_operation();
    enter();
    leave_operation();
}

fn by_nmi() {
    enter_operation();
    nmi::initialise();
    nmi::blocked(enter);
    leave_operation();
}

fn enter() {
    let mut nested = Guest::new(nothing);
    check!(nested.add_pin(PinBasedControls::NMI_EXITING), "pin-based controls");
    nested.write(vmcs::GUEST_ACTIVITY, 3);
    PHASE.store(1, Ordering::SeqCst);
    while !GO.load(Ordering::SeqCst) {
        pause();
    }
    match nested.try_entry() {
        Entry::Entered => REASON.store(nested.read(vmcs::EXIT_REASON), Ordering::SeqCst),
        _ => REASON.store(0xffff_fffe, Ordering::SeqCst),
    }
    if IS_INIT.load(Ordering::SeqCst) {
        // Behind VMXOFF it would have this CPU start again.
        nested.write(vmcs::GUEST_ACTIVITY, 0);
        check_eq!(nested.run(), ExitReason::INIT, "INIT goes on waiting, and comes with the next entry");
    }
    nested.clear();
    let page = PAGE.load(Ordering::SeqCst);
    // Both translations, of reads and of writes.
    let _ = read64(page).and_then(|value| write64(page, value).map(|()| value));
    PHASE.store(2, Ordering::SeqCst);
    while !IS_OVER.load(Ordering::SeqCst) {
        if let Ok(value) = read64(page) {
            LAST.store(value, Ordering::SeqCst);
        }
        if WRITE.swap(false, Ordering::SeqCst) {
            let _ = write64(page, 0x0bad_0bad);
        }
        pause();
    }
}

extern "C" fn nothing() {}
