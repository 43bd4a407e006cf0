//! A protection holds when its hypercall is back: no store of another CPU lands behind it, however many are under way.
//! cpus: 2
//! hypapp: verify
//! bare: no
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};

use guest::cpu::{wait, wait_until};
use guest::memory::{FREE, read64, write64};
use guest::{Fault, Mode, Regs, check, check_eq, guest, run, smp, snippet};

guest!(main);

const SET: u64 = 0xdead_beef;
const READ_ONLY: u64 = 2 | 4 | 32;
const ALL: u64 = 2 | 8 | 16;
const PAGE: u64 = FREE + 0x20_3000;
const WORDS: u64 = 512;
const ROUNDS: u64 = 150;
/// The port that every hypervisor watches: stores of INS from there are its own.
const KEYBOARD_STATUS: u64 = 0x64;
/// Vector of the fault that ended the other CPU's stores.
static ENDED_BY: AtomicU64 = AtomicU64::new(0);

fn main() {
    check!(smp::start_others(1), "two CPUs");
    for (job, what) in [(count as fn(), "stores of the guest"), (fill, "stores of the hypervisor for it")] {
        let mut late = 0;
        for round in 0..ROUNDS {
            late += u64::from(is_late(job, round, what));
        }
        check_eq!(late, 0, "of {ROUNDS} rounds, those with {what} behind the hypercall");
    }
}

/// Takes the page from the other CPU in the midst of its stores; returns whether any landed afterwards.
fn is_late(job: fn(), round: u64, what: &str) -> bool {
    for offset in (0..8 * WORDS).step_by(8) {
        let _ = write64(PAGE + offset, 0);
    }
    ENDED_BY.store(0, Ordering::SeqCst);
    smp::begin_on(1, job);
    check!(wait_until(smp::PATIENCE, || read64(PAGE) != Ok(0)), "{what}: they begin");
    // Another instruction of the other CPU's each time.
    wait(1 + round * 7 % 211);
    check_eq!(set(READ_ONLY), 0, "{what}: taking the right");
    let before = sum();
    wait(2_000);
    let is_late = sum() != before;
    check!(wait_until(smp::PATIENCE, || smp::is_ready(1)), "{what}: the other CPU comes back");
    check_eq!(ENDED_BY.load(Ordering::SeqCst), u64::from(Fault::GP.vector), "{what}: a fault ended them");
    check_eq!(set(ALL), 0, "{what}: giving the right back");
    is_late
}

/// The first word counts; of the others the last ones change last.
fn sum() -> u64 {
    let words = (0..WORDS).rev().map(|index| read64(PAGE + 8 * index).unwrap_or(0));
    words.fold(0, u64::wrapping_add)
}

/// CPU 1: counts in the page until that faults.
fn count() {
    store_until_fault(snippet!("2: inc qword ptr [rdi]", "jmp 2b"));
}

/// CPU 1: has a watched port's bytes stored all over the page until that faults.
fn fill() {
    store_until_fault(snippet!(
        "mov rsi, rdi",
        "2: mov rdi, rsi",
        "mov ecx, 4096",
        "rep insb",
        "inc qword ptr [rsi]",
        "jmp 2b"
    ));
}

fn store_until_fault(code: guest::Snippet) {
    let mut regs = Regs { rdi: PAGE, rdx: KEYBOARD_STATUS, ..Regs::default() };
    let fault = run(Mode::Kernel64, code, &mut regs).err().map_or(0xff, |fault| fault.vector);
    ENDED_BY.store(fault.into(), Ordering::SeqCst);
}

fn set(types: u64) -> u64 {
    let mut regs = Regs { rax: SET, rcx: PAGE >> 12, rdx: types, ..Regs::default() };
    check_eq!(run(Mode::Kernel64, snippet!("vmcall"), &mut regs), Ok(()), "the hypercall exists");
    regs.rax
}
