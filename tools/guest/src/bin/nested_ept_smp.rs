//! Stale translations: two processors of a hypervisor share tables: each sees what was changed before its own INVEPT.
//! cpus: 2
//! cmdline: nested=on
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use guest::cpu::wait_until;
use guest::memory::read64;
use guest::smp;
use guest::vmx::prelude::*;
use guest::vmx::{Ept, allocate, instruction, write};
use x86::vmx::controls::SecondaryControls;

guest!(main);

const PAGE: u64 = 0x3000_1000;
const ROUNDS: u64 = 400;
const WRITE_BACK_ALL: u64 = 6 << 3 | 7;

static POINTER: AtomicU64 = AtomicU64::new(0);
static ENTRY: AtomicU64 = AtomicU64::new(0);
static PAGES: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];
/// The number that the page at [`PAGE`] holds by the tables, as far as the other CPU has told.
static TOLD: AtomicU64 = AtomicU64::new(0);
static SEEN: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];
static IS_OVER: AtomicBool = AtomicBool::new(false);

fn main() {
    check!(smp::start_others(1), "two CPUs");
    let mut ept = Ept::identity();
    for page in &PAGES {
        page.store(allocate(), Ordering::SeqCst);
    }
    ept.map(PAGE, PAGES[0].load(Ordering::SeqCst), 7);
    POINTER.store(ept.pointer(), Ordering::SeqCst);
    ENTRY.store(ept.entry(PAGE, 1), Ordering::SeqCst);
    smp::begin_on(1, change);
    let mut nested = guest_of_this_cpu();
    let mut last = 0;
    while !IS_OVER.load(Ordering::SeqCst) {
        let told = TOLD.load(Ordering::SeqCst);
        invalidate();
        let seen = look(&mut nested);
        check!(seen >= told, "{seen} is seen after INVEPT, {told} was there before");
        check!(told >= last, "{told} after {last}");
        last = told;
    }
    check!(wait_until(smp::PATIENCE, || smp::is_ready(1)), "the other CPU ends");
    invalidate();
    check_eq!(look(&mut nested), ROUNDS, "the last number");
    leave_operation();
}

fn guest_of_this_cpu() -> Guest {
    enter_operation();
    let mut nested = Guest::new(read_page);
    check!(nested.add_secondary(SecondaryControls::ENABLE_EPT), "the processor has EPT");
    nested.write(vmcs::EPT_POINTER, POINTER.load(Ordering::SeqCst));
    nested
}

fn invalidate() {
    check_eq!(instruction::invept(1, [POINTER.load(Ordering::SeqCst), 0]), Ok(()), "INVEPT");
}

/// What the guest of this CPU reads in the page.
fn look(nested: &mut Guest) -> u64 {
    nested.call(read_page);
    check_eq!(nested.run(), ExitReason::VMCALL, "the guest reads the page");
    SEEN[smp::number()].load(Ordering::SeqCst)
}

extern "C" fn read_page() {
    SEEN[smp::number()].store(read64(PAGE).unwrap_or(u64::MAX), Ordering::SeqCst);
}

/// The other CPU has the page lead here and there, and its own guest read it all the time.
fn change() {
    let mut nested = guest_of_this_cpu();
    let entry = ENTRY.load(Ordering::SeqCst);
    for number in 1..=ROUNDS {
        let page = PAGES[(number & 1) as usize].load(Ordering::SeqCst);
        write(page, number);
        write(entry, page | WRITE_BACK_ALL);
        TOLD.store(number, Ordering::SeqCst);
        // Without INVEPT either page may be seen.
        let seen = look(&mut nested);
        check!(seen <= number, "{seen} is seen before it is written");
        if number % 16 == 0 {
            invalidate();
            check_eq!(look(&mut nested), number, "what is seen after INVEPT");
        }
    }
    leave_operation();
    IS_OVER.store(true, Ordering::SeqCst);
}
