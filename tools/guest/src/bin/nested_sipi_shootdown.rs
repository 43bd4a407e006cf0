//! NMI/INIT/SIPI: protections that are set on another CPU hold for a hypervisor whose entry into waiting for a start-up IPI
//! an INIT strikes.
//! cpus: 2
//! hypapp: verify
//! bare: no
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use guest::cpu::{pause, wait, wait_until};
use guest::memory::{read64, write64};
use guest::vmx::allocate;
use guest::vmx::prelude::*;
use guest::vmx::verdict::Entry;
use guest::{Mode, Regs, apic, run, smp, snippet};
use x86::vmx::controls::PinBasedControls;

guest!(main);

const SET: u64 = 0xdead_beef;
const NOT_PRESENT: u64 = 1;
const READ_ONLY: u64 = 2 | 4 | 32;
const ALL: u64 = 2 | 8 | 16;
const WHILE: u64 = 2_000_000;

static PAGE: AtomicU64 = AtomicU64::new(0);
static PHASE: AtomicU32 = AtomicU32::new(0);
static REASON: AtomicU32 = AtomicU32::new(0xffff_ffff);
static IS_OVER: AtomicBool = AtomicBool::new(false);
static GO: AtomicBool = AtomicBool::new(false);
static READS: AtomicU64 = AtomicU64::new(0);
static FAULTS: AtomicU64 = AtomicU64::new(0);
static LAST: AtomicU64 = AtomicU64::new(0);

fn main() {
    check!(smp::start_others(1), "two CPUs");
    let page = allocate();
    PAGE.store(page, Ordering::SeqCst);
    check!(write64(page, 0x1111).is_ok(), "memory");
    smp::begin_on(1, other);
    check!(wait_until(smp::PATIENCE, || PHASE.load(Ordering::SeqCst) == 1), "in root operation");
    // INIT waits there.
    apic::init(smp::apic_id(1));
    wait(300_000);
    GO.store(true, Ordering::SeqCst);
    let gone_on = wait_until(smp::PATIENCE / 4, || PHASE.load(Ordering::SeqCst) == 2);
    check!(
        !gone_on,
        "INIT is blocked while waiting for a start-up IPI, yet L1 got exit {:#x}",
        REASON.load(Ordering::SeqCst)
    );
    if !gone_on {
        apic::startup(smp::apic_id(1), 0x9a);
        check!(wait_until(smp::PATIENCE, || PHASE.load(Ordering::SeqCst) == 2), "start-up IPI");
    }
    // The other CPU reads and writes the page now, in L1, without any exit.
    wait(WHILE);
    check!(READS.load(Ordering::SeqCst) > 10, "it reads");
    set(NOT_PRESENT);
    wait(WHILE / 4);
    let before = (READS.load(Ordering::SeqCst), FAULTS.load(Ordering::SeqCst));
    // The secret of whoever owns the page now: this CPU opens it for itself only long enough to write it elsewhere.
    wait(WHILE);
    let after = (READS.load(Ordering::SeqCst), FAULTS.load(Ordering::SeqCst));
    check_eq!((after.0 != before.0, after.1 != before.1), (false, true), "reads go on, faults");
    set(READ_ONLY);
    set(ALL);
    IS_OVER.store(true, Ordering::SeqCst);
    check!(wait_until(smp::PATIENCE, || smp::is_ready(1)), "the other CPU ends");
}

fn other() {
    enter_operation();
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
    let page = PAGE.load(Ordering::SeqCst);
    PHASE.store(2, Ordering::SeqCst);
    while !IS_OVER.load(Ordering::SeqCst) {
        match read64(page) {
            Ok(value) => {
                READS.fetch_add(1, Ordering::SeqCst);
                LAST.store(value, Ordering::SeqCst);
            }
            Err(_) => {
                FAULTS.fetch_add(1, Ordering::SeqCst);
            }
        }
        pause();
    }
    // Behind VMXOFF it would have this CPU start again.
    nested.write(vmcs::GUEST_ACTIVITY, 0);
    check_eq!(nested.run(), ExitReason::INIT, "INIT goes on waiting, and comes with the next entry");
    nested.clear();
    leave_operation();
}

extern "C" fn nothing() {}

fn set(types: u64) {
    let mut regs = Regs { rax: SET, rcx: PAGE.load(Ordering::SeqCst) >> 12, rdx: types, ..Regs::default() };
    check_eq!(run(Mode::Kernel64, snippet!("vmcall"), &mut regs), Ok(()), "the hypercall exists");
    check_eq!(regs.rax, 0, "protections {types}");
}
