//! Page tables and CR3 change under a PAL, by another CPU and in the midst of a call: it has its own pages, its process alone calls it.
//! cpus: 2
//! cmdline: pal_ticks=50000
//! hypapp: trustvisor
//! bare: no
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};

use guest::canary::{self, Vault, call, is_in, is_in_frame};
use guest::cpu::{wait_until, write_cr3};
use guest::memory::{FREE, read64, write64};
use guest::pal::{CF, PAGE, PALS};
use guest::space::{self, Space, USER, WRITABLE, window};
use guest::trap::{Frame, handle};
use guest::{Fault, Mode, Snippet, apic, check, check_eq, guest, run, smp, snippet};
use trustvisor::call::Failure;

guest!(main);

const TABLES: u64 = FREE + 0x4_0000;
const ROUNDS: u64 = 200_000;
const OPEN: u64 = USER | WRITABLE;
/// Where the vault is in its window, and its pages.
const FIRST: u64 = 8;
const VAULT: Vault = Vault { at: PALS, entry: window(FIRST) };
/// Memory that is mapped in its stead.
const OTHER: u64 = PALS + 0x1_0000;
const VECTOR: u8 = 0x40;
/// What the other CPU's call came to: 1 in order, 2 otherwise.
static OUTCOME: AtomicU64 = AtomicU64::new(0);
/// CR3 that the interrupt's handler sets, and how often it met the PAL's caller at the entry.
static NEXT_CR3: AtomicU64 = AtomicU64::new(0);
static MET: AtomicU64 = AtomicU64::new(0);
static LEAKS: AtomicU64 = AtomicU64::new(0);

fn main() {
    check!(smp::start_others(1), "two CPUs");
    let [own, foreign] = [TABLES, TABLES + space::BYTES].map(Space::new);
    show(&own, PALS);
    show(&foreign, PALS);
    let _ = Vault::place(0);
    own.within(|| {
        check_eq!(VAULT.register(), 0, "registering");
        VAULT.keep();
    });
    put(OTHER, snippet!("mov eax, 0x1234", "ret"));
    by_another_cpu(&own);
    by_its_own(&own);
    from_a_foreign_space(&foreign);
    handle(VECTOR, Some(tick));
    apic::write(apic::register::SPURIOUS, 0x1ff);
    apic::write(apic::register::TIMER_DIVIDE, 0b1011);
    in_flight(&own, &foreign);
    given_up(&own, &foreign);
    check_eq!(own.within(|| VAULT.unregister()), 0, "unregistering");
    canary::is_nowhere("after all");
}

/// Shows four pages from `physical` on where the vault is.
fn show(space: &Space, physical: u64) {
    for page in 0..4 {
        space.map(FIRST + page, physical + page * PAGE, OPEN);
    }
}

fn put(at: u64, code: Snippet) {
    for offset in (0..code.length() as u64).step_by(8) {
        let _ = write64(at + offset, read64(code.address() + offset).unwrap_or(0));
    }
}

fn by_another_cpu(own: &Space) {
    for round in 0..3 {
        OUTCOME.store(0, Ordering::SeqCst);
        smp::begin_on(1, hold);
        let mut changes: u64 = 0;
        while !smp::is_ready(1) && changes < 100_000 {
            // The entry stays, for the call is made again by each interrupt.
            let page = 1 + changes % 3;
            match changes % 4 {
                0 => own.map(FIRST + page, OTHER, OPEN),
                1 => own.unmap(FIRST + page),
                2 => own.map(FIRST + page, PALS, 0),
                _ => {
                    let _ = write64(own.entry(FIRST + page), u64::MAX);
                }
            }
            changes += 1;
        }
        show(own, PALS);
        check!(wait_until(smp::PATIENCE, || smp::is_ready(1)), "the other CPU comes back");
        check_eq!(OUTCOME.load(Ordering::SeqCst), 1, "round {round}: the call under {changes} changes");
        check!(changes > 100, "{changes} changes");
        canary::is_nowhere("after changes by another CPU");
    }
}

fn hold() {
    let space = Space::at(TABLES);
    let is_well = space.within(|| VAULT.holds(ROUNDS));
    OUTCOME.store(if is_well { 1 } else { 2 }, Ordering::SeqCst);
}

/// Another page where the entry is: a function like any other.
fn by_its_own(own: &Space) {
    own.map(FIRST, OTHER, OPEN);
    check_eq!(own.within(|| VAULT.answer()), Ok((0x1234, 0)), "what is mapped there runs instead");
    show(own, PALS);
    for page in 1..4 {
        own.map(FIRST + page, OTHER, OPEN);
    }
    check!(own.within(|| VAULT.knows()), "other pages where its data was");
    own.unmap(FIRST + 1);
    check!(own.within(|| VAULT.knows()), "none where its data was");
    show(own, PALS);
    own.map(FIRST, PALS, WRITABLE);
    let refused = own.within(|| VAULT.answer());
    check!(refused.is_err_and(|fault| fault.vector == 14), "an entry that ring 3 may not use: {refused:x?}");
    show(own, PALS);
    check!(own.within(|| VAULT.knows()), "the PAL goes on");
    canary::is_nowhere("after changes between calls");
}

/// The same pages at the same addresses, of another process.
fn from_a_foreign_space(foreign: &Space) {
    check_eq!(foreign.within(|| VAULT.answer()), Err(Fault::GP), "a call from another process");
    for page in 0..4 {
        check_eq!(
            foreign.within(|| read64(window(FIRST + page) + 8)),
            Ok(0),
            "page {page} from another process"
        );
    }
    check_eq!(foreign.within(|| VAULT.unregister()) == 0, false, "unregistering from another process");
    canary::is_nowhere("after another process");
}

/// The handler of an interrupt goes on in another address space, where the PAL's entry is, or something else.
fn in_flight(own: &Space, foreign: &Space) {
    for (what, shown, expected) in
        [("the same pages", PALS, Err(Fault::GP)), ("other pages", OTHER, Ok(0x1234))]
    {
        show(foreign, shown);
        NEXT_CR3.store(foreign.cr3(), Ordering::SeqCst);
        MET.store(0, Ordering::SeqCst);
        own.within(|| {
            let mut regs = VAULT.registers(10 * ROUNDS);
            apic::write(apic::register::LVT_TIMER, u32::from(VECTOR));
            apic::write(apic::register::TIMER_INITIAL, 100_000);
            let seen = run(Mode::User64, call(), &mut regs).map(|()| regs.eax());
            check_eq!(seen, expected, "{what}: the call goes on elsewhere");
            check!(!is_in(&regs), "{what}: registers are free of the canary");
            let _ = write_cr3(own.cr3());
            check_eq!(MET.load(Ordering::SeqCst), 1, "{what}: the interrupt met the PAL");
            canary::is_nowhere(what);
            // The same stack pointer goes on where it was.
            check_eq!(
                VAULT.held(10 * ROUNDS),
                Ok((1, 0)),
                "{what}: back in its own, the call goes on and ends"
            );
            check!(VAULT.knows(), "{what}: the next call");
        });
    }
    check_eq!(LEAKS.load(Ordering::SeqCst), 0, "interrupts that saw the canary");
}

/// A process whose call was interrupted never goes on: its pages become the system's, without what the PAL had.
fn given_up(own: &Space, foreign: &Space) {
    MET.store(0, Ordering::SeqCst);
    let mut regs = VAULT.registers(10 * ROUNDS);
    own.within(|| {
        NEXT_CR3.store(foreign.cr3(), Ordering::SeqCst);
        apic::write(apic::register::TIMER_INITIAL, 100_000);
        check_eq!(run(Mode::User64, call(), &mut regs), Ok(()), "the interrupted call is left behind");
    });
    check_eq!(MET.load(Ordering::SeqCst), 1, "the interrupt met the PAL");
    check_eq!(write64(PALS + 2 * PAGE, 7), Ok(()), "a write to a page of the suspended PAL");
    canary::is_nowhere("after a suspended PAL was given up");
    let answer = own.within(|| VAULT.answer());
    check_eq!(answer, Ok((Failure::DEAD.0, CF)), "the call cannot go on");
}

fn tick(frame: &mut Frame) -> bool {
    if is_in_frame(frame) {
        LEAKS.fetch_add(1, Ordering::SeqCst);
    }
    if frame.rip == VAULT.entry {
        MET.fetch_add(1, Ordering::SeqCst);
        guest::cpu::load_cr3(NEXT_CR3.load(Ordering::SeqCst));
    }
    apic::end_of_interrupt();
    true
}
