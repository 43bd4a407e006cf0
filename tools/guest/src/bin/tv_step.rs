//! The system steps through a PAL's call by TF, breakpoints and watchpoints: it sees the call and its end, and nothing between.
//! hypapp: trustvisor
//! bare: no
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};

use guest::canary::{self, Vault, is_in, is_in_frame};
use guest::cpu::{
    cpuid, rdmsr, read_dr6, write_dr0, write_dr1, write_dr2, write_dr3, write_dr6, write_dr7, wrmsr,
};
use guest::pal::{CF, IF, PAGE};
use guest::trap::{Frame, handle};
use guest::{Mode, check, check_eq, guest, run, snippet};
use x86::msr::Msr;

guest!(main);

const TF: u64 = 1 << 8;
const RF: u64 = 1 << 16;
/// All four breakpoints, local and global: two on fetches, two on reads and writes of 8 bytes.
const ALL: u64 = 0xff | 0xbb00_0000;
static ENTRY: AtomicU64 = AtomicU64::new(0);
static STEPS: AtomicU64 = AtomicU64::new(0);
static AT_ENTRY: AtomicU64 = AtomicU64::new(0);
/// Debug exceptions inside the PAL's pages, behind its entry; and those that saw the canary.
static INSIDE: AtomicU64 = AtomicU64::new(0);
static LEAKS: AtomicU64 = AtomicU64::new(0);

fn main() {
    handle(1, Some(step));
    let vault = Vault::open(0);
    ENTRY.store(vault.entry, Ordering::SeqCst);
    steps(&vault);
    breaks(&vault);
    both(&vault);
    counts(&vault);
    handle(1, None);
    check!(vault.knows(), "the PAL goes on");
    check_eq!(vault.unregister(), 0, "unregistering");
}

fn steps(vault: &Vault) {
    let (steps, at_entry) = called(vault, TF);
    // The call, which leads to the entry, and the two instructions behind it.
    check_eq!((steps, at_entry), (3, 1), "steps, and those at the entry");
    canary::is_nowhere("after single steps");
}

fn breaks(vault: &Vault) {
    set_breakpoints([vault.entry, vault.entry + 0x20, vault.entry + PAGE, vault.entry + 4 * PAGE - 8]);
    let (seen, at_entry) = called(vault, 0);
    check_eq!((seen, at_entry), (1, 1), "breakpoints that were met, and at the entry");
    let _ = write_dr6(0xffff_0ff0);
    set_breakpoints([vault.entry + 0x20, vault.entry + 0x30, vault.entry + PAGE, vault.entry + 4 * PAGE - 8]);
    let (seen, _) = called(vault, 0);
    check_eq!((seen, read_dr6() & 0xf), (0, 0), "breakpoints inside alone, and what DR6 tells of them");
    canary::is_nowhere("after breakpoints");
}

fn both(vault: &Vault) {
    set_breakpoints([vault.entry, vault.entry + 4, vault.entry + PAGE, vault.entry + 4 * PAGE - 8]);
    let (steps, at_entry) = called(vault, TF);
    check!(steps <= 4 && (1..=2).contains(&at_entry), "{steps} steps, {at_entry} of them at the entry");
    let _ = write_dr7(0x400);
    let _ = write_dr6(0xffff_0ff0);
    canary::is_nowhere("after steps and breakpoints");
}

/// Counters of instructions stand still inside a PAL, where the processor has them.
fn counts(vault: &Vault) {
    const FIXED: u64 = 1 << 32;
    let control = Msr::IA32_PERF_GLOBAL_CTRL;
    let is_told_of = cpuid(0, 0).eax >= 0xa && cpuid(0xa, 0).eax & 0xff >= 2;
    if !is_told_of || rdmsr(control).is_err() {
        guest::println!("no performance counters here");
        return;
    }
    let (fixed, counter) = (Msr(0x38d), Msr(0x309));
    check_eq!(wrmsr(fixed, 0x3).and(wrmsr(counter, 0)).and(wrmsr(control, FIXED)), Ok(()), "a counter");
    check!(vault.holds(100_000), "a call under the counter");
    let counted = rdmsr(counter).unwrap_or(u64::MAX);
    check_eq!(rdmsr(control), Ok(FIXED), "the counter's switch is as it was");
    check_eq!(wrmsr(control, 0), Ok(()), "no counter");
    check!(counted < 100_000, "{counted} instructions counted");
}

fn set_breakpoints([first, second, third, fourth]: [u64; 4]) {
    let set = write_dr0(first).and(write_dr1(second)).and(write_dr2(third)).and(write_dr3(fourth));
    check_eq!(set.and(write_dr7(ALL)), Ok(()), "breakpoints");
}

/// Debug exceptions of one call with these flags, and those at the entry.
fn called(vault: &Vault, flags: u64) -> (u64, u64) {
    for counter in [&STEPS, &AT_ENTRY] {
        counter.store(0, Ordering::SeqCst);
    }
    let mut regs = vault.registers(1000);
    regs.rflags = IF | flags;
    let call = snippet!("call r15", "nop", "nop");
    check_eq!(run(Mode::User64, call, &mut regs), Ok(()), "the call");
    check_eq!((regs.eax(), regs.rflags & (CF | TF)), (1, flags), "its result");
    check!(!is_in(&regs), "registers are free of the canary");
    check_eq!(INSIDE.load(Ordering::SeqCst), 0, "debug exceptions inside the PAL");
    check_eq!(LEAKS.load(Ordering::SeqCst), 0, "debug exceptions that saw the canary");
    (STEPS.load(Ordering::SeqCst), AT_ENTRY.load(Ordering::SeqCst))
}

fn step(frame: &mut Frame) -> bool {
    STEPS.fetch_add(1, Ordering::SeqCst);
    let entry = ENTRY.load(Ordering::SeqCst);
    if frame.rip == entry {
        AT_ENTRY.fetch_add(1, Ordering::SeqCst);
    } else if (entry..entry + 4 * PAGE).contains(&frame.rip) {
        INSIDE.fetch_add(1, Ordering::SeqCst);
    }
    if is_in_frame(frame) {
        LEAKS.fetch_add(1, Ordering::SeqCst);
    }
    // A breakpoint on a fetch is not to be met again at once.
    frame.rflags |= RF;
    true
}
