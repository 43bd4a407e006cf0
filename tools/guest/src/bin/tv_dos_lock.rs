//! While a thread registers a large PAL, another thread that writes to one of its pages does not hold up its processor.
//! cpus: 2
//! memory: 128
//! cmdline: log=warn
//! hypapp: trustvisor
//! bare: no
#![no_std]
#![no_main]
#![expect(clippy::cast_possible_truncation, reason = "addresses below 4 GiB")]

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use guest::cpu::{rdtsc, wait};
use guest::memory::write64;
use guest::pal::{self, PAGE, PALS};
use guest::run::USER_BASE;
use guest::{Mode, Regs, check, guest, println, run, smp, snippet};
use trustvisor::section::{SectionRecord, SectionType};

guest!(main);

const MODE: Mode = Mode::User64;
const RUN: u64 = PALS + 0x10_0000;
const PAGES: u64 = 512;
static IS_BEGUN: AtomicBool = AtomicBool::new(false);
static STALL: AtomicU64 = AtomicU64::new(0);

fn main() {
    check!(smp::start_others(1), "two CPUs");
    for page in 0..PAGES {
        let _ = write64(RUN + page * PAGE, page + 1);
    }
    let section = |kind: SectionType, start, pages: u64| SectionRecord {
        kind: kind as u32,
        pages: pages as u32,
        start: pal::user(MODE, start),
    };
    let sections = [
        section(SectionType::Code, PALS, 1),
        section(SectionType::Stack, PALS + PAGE, 1),
        section(SectionType::Data, RUN, PAGES),
    ];
    smp::begin_on(1, other);
    IS_BEGUN.store(true, Ordering::SeqCst);
    let start = rdtsc();
    let status = pal::register(MODE, &sections, &[], sections[0].start);
    println!("registering {PAGES} pages: status {status}, {} ticks", rdtsc() - start);
    check!(guest::cpu::wait_until(10 * smp::PATIENCE, || smp::is_ready(1)), "the other CPU");
    let stall = STALL.load(Ordering::SeqCst);
    println!("a store of the other CPU took {stall} ticks");
    check!(stall < 1_000_000, "a store took {stall} ticks");
}

/// Ring 3 writes to a page of what is being registered.
fn other() {
    while !IS_BEGUN.load(Ordering::SeqCst) {
        core::hint::spin_loop();
    }
    wait(10_000_000);
    let mut regs = Regs { rdi: USER_BASE + RUN + 8, rflags: pal::IF, ..Regs::default() };
    let start = rdtsc();
    let _ = run(MODE, snippet!("mov qword ptr [rdi], 1"), &mut regs);
    STALL.store(rdtsc() - start, Ordering::SeqCst);
}
