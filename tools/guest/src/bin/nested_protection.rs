//! Emulation against intercepts: a hypapp's protections hold for a guest's guest at once, with tables of its own or not.
//! cpus: 2
//! hypapp: verify
//! bare: no
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use guest::cpu::{wait, wait_until};
use guest::memory::{read64, write64};
use guest::vmx::prelude::*;
use guest::vmx::{Ept, allocate};
use guest::{Mode, Regs, run, smp, snippet};

guest!(main);

const SET: u64 = 0xdead_beef;
const NOT_PRESENT: u64 = 1;
const READ_ONLY: u64 = 2 | 4 | 32;
const ALL: u64 = 2 | 8 | 16;
/// Ticks within which the other CPU tries more than once.
const WHILE: u64 = 2_000_000;

static PAGE: AtomicU64 = AtomicU64::new(0);
static HAS_EPT: AtomicBool = AtomicBool::new(false);
static IS_OVER: AtomicBool = AtomicBool::new(false);
static READS: AtomicU64 = AtomicU64::new(0);
static READ_FAULTS: AtomicU64 = AtomicU64::new(0);
static WRITES: AtomicU64 = AtomicU64::new(0);
static WRITE_FAULTS: AtomicU64 = AtomicU64::new(0);

fn main() {
    check!(smp::start_others(1), "two CPUs");
    PAGE.store(allocate(), Ordering::SeqCst);
    for has_ept in [false, true] {
        HAS_EPT.store(has_ept, Ordering::SeqCst);
        IS_OVER.store(false, Ordering::SeqCst);
        smp::begin_on(1, run_l2);
        for round in 0..8 {
            expect(true, true, has_ept, round);
            set(READ_ONLY);
            expect(true, false, has_ept, round);
            set(NOT_PRESENT);
            expect(false, false, has_ept, round);
            set(ALL);
        }
        IS_OVER.store(true, Ordering::SeqCst);
        check!(wait_until(smp::PATIENCE, || smp::is_ready(1)), "the other CPU ends");
    }
}

/// From the return of the hypercall on the guest's guest of the other CPU can do this, and no more.
fn expect(reads: bool, writes: bool, has_ept: bool, round: u64) {
    let counts = || [&READS, &READ_FAULTS, &WRITES, &WRITE_FAULTS].map(|count| count.load(Ordering::SeqCst));
    // What it had begun before may be counted yet.
    wait(WHILE / 4);
    let before = counts();
    wait(WHILE);
    let after = counts();
    let moved: [bool; 4] = core::array::from_fn(|index| after[index] != before[index]);
    check_eq!(moved, [reads, !reads, writes, !writes], "EPT {has_ept}, round {round}: reads, writes");
}

fn set(types: u64) {
    let mut regs = Regs { rax: SET, rcx: PAGE.load(Ordering::SeqCst) >> 12, rdx: types, ..Regs::default() };
    check_eq!(run(Mode::Kernel64, snippet!("vmcall"), &mut regs), Ok(()), "the hypercall exists");
    check_eq!(regs.rax, 0, "protections {types}");
}

/// The other CPU: its guest tries all the time.
fn run_l2() {
    enter_operation();
    let mut nested = Guest::new(attempt);
    let ept = Ept::identity();
    if HAS_EPT.load(Ordering::SeqCst) {
        nested.use_ept(&ept);
    }
    check_eq!(nested.run(), ExitReason::VMCALL, "the guest's guest is left in peace");
    nested.clear();
    leave_operation();
}

/// L2.
extern "C" fn attempt() {
    let page = PAGE.load(Ordering::SeqCst);
    while !IS_OVER.load(Ordering::SeqCst) {
        let count = if read64(page).is_ok() { &READS } else { &READ_FAULTS };
        count.fetch_add(1, Ordering::SeqCst);
        let count = if write64(page + 8, 7).is_ok() { &WRITES } else { &WRITE_FAULTS };
        count.fetch_add(1, Ordering::SeqCst);
    }
}
