//! Two CPUs register PALs as large as there are at the same moment; one more and odd orders of pages are taken back whole.
//! cpus: 2
//! memory: 128
//! hypapp: trustvisor
//! bare: no
#![no_std]
#![no_main]
#![expect(
    clippy::cast_possible_truncation,
    reason = "addresses below 4 GiB, selectors, and patterns of bytes"
)]

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use guest::canary;
use guest::cpu::{pause, wait_until};
use guest::memory::{FREE, read8, read64, write8, write64};
use guest::pal::{self, CF, IF, PAGE};
use guest::run::USER_BASE;
use guest::space::{Space, USER, WRITABLE, window};
use guest::{Mode, Regs, Snippet, check, check_eq, guest, run, smp, snippet};
use trustvisor::command::Command;
use trustvisor::section::{SectionRecord, SectionType};
use trustvisor::status::Status;

guest!(main);

const MODE: Mode = Mode::User64;
const PAGES: u64 = 4096;
/// Where both PALs are: code, data, and a page of stack at the end.
const PLACES: [u64; 2] = [0x100_0000, 0x300_0000];
static ARRIVED: AtomicU64 = AtomicU64::new(0);
static STATUS: AtomicU32 = AtomicU32::new(0);
static ANSWER: AtomicU64 = AtomicU64::new(0);

fn main() {
    check!(smp::start_others(1), "two CPUs");
    for place in PLACES {
        put(place, adder());
        check_eq!(write64(place + 2000 * PAGE, 5), Ok(()), "a word of data");
    }
    check_eq!(register(PLACES[0], PAGES), Status::SECTION_SIZE.0, "one page too many");
    for round in 0..2 {
        both(round);
    }
    out_of_order();
    canary::is_nowhere("at the end");
}

fn put(at: u64, code: Snippet) {
    for offset in 0..code.length() as u64 {
        let _ = write8(at + offset, read8(code.address() + offset).unwrap_or(0));
    }
}

fn both(round: u64) {
    ARRIVED.store(0, Ordering::SeqCst);
    smp::begin_on(1, there);
    meet();
    let status = register(PLACES[0], PAGES - 2);
    let answer = call(PLACES[0]);
    check!(wait_until(10 * smp::PATIENCE, || smp::is_ready(1)), "the other CPU comes back");
    check_eq!((status, STATUS.load(Ordering::SeqCst)), (0, 0), "round {round}: registering");
    check_eq!((answer, ANSWER.load(Ordering::SeqCst)), (12, 12), "round {round}: sums");
    for place in PLACES {
        for page in [0, 1, 2000, PAGES - 1] {
            check_eq!(read64(place + page * PAGE), Ok(0), "round {round}: page {page} is hidden");
        }
        check_eq!(unregister(place), 0, "round {round}: unregistering");
        let left = (place + PAGE..place + PAGES * PAGE).step_by(PAGE as usize);
        check_eq!(
            left.filter(|&page| read64(page) != Ok(0)).count(),
            0,
            "round {round}: pages that are not zero"
        );
        check_eq!(write64(place + 2000 * PAGE, 5), Ok(()), "round {round}: a word of data");
    }
}

fn meet() {
    ARRIVED.fetch_add(1, Ordering::SeqCst);
    while ARRIVED.load(Ordering::SeqCst) < 2 {
        pause();
    }
}

fn there() {
    meet();
    STATUS.store(register(PLACES[1], PAGES - 2), Ordering::SeqCst);
    ANSWER.store(call(PLACES[1]), Ordering::SeqCst);
}

/// A page of code, so many of data, and one of stack.
fn register(place: u64, data: u64) -> u32 {
    let section = |kind: SectionType, pages: u64, first: u64| SectionRecord {
        kind: kind as u32,
        pages: pages as u32,
        start: USER_BASE + place + first * PAGE,
    };
    let sections = [
        section(SectionType::Code, 1, 0),
        section(SectionType::Data, data, 1),
        section(SectionType::Stack, 1, 1 + data),
    ];
    pal::register(MODE, &sections, &[], USER_BASE + place)
}

fn unregister(place: u64) -> u32 {
    pal::hypercall(MODE, Command::UNREGISTER.0, [USER_BASE + place, 0, 0, 0])
}

fn call(place: u64) -> u64 {
    let mut regs = Regs { r15: USER_BASE + place, rflags: IF, ..Regs::default() };
    let called = run(MODE, snippet!("call r15"), &mut regs);
    if called.is_ok() && regs.rflags & CF == 0 { regs.rax } else { u64::MAX }
}

/// Adds what is in page 2000 to 7.
fn adder() -> Snippet {
    snippet!("lea rdx, [rip]", "and rdx, -4096", "mov rax, [rdx + 2000 * 4096]", "add rax, 7", "ret")
}

/// Pages in the opposite order, and every other one.
fn out_of_order() {
    const COUNT: u64 = 256;
    let space = Space::new(FREE + 0x4_0000);
    for step in [1, 2] {
        for page in 0..COUNT {
            space.map(page, PLACES[0] + (COUNT - 1 - page) * step * PAGE, USER | WRITABLE);
        }
        put(PLACES[0] + (COUNT - 1) * step * PAGE, snippet!("mov eax, 3", "ret"));
        let section = |kind: SectionType, pages, first| SectionRecord {
            kind: kind as u32,
            pages,
            start: window(first),
        };
        let sections = [
            section(SectionType::Code, 1, 0),
            section(SectionType::Data, COUNT as u32 - 2, 1),
            section(SectionType::Stack, 1, COUNT - 1),
        ];
        space.within(|| {
            check_eq!(pal::register(MODE, &sections, &[], window(0)), 0, "step {step}: registering");
            let called = pal::call(MODE, window(0), [0; 10], IF).map(|regs| (regs.rax, regs.rflags & CF));
            check_eq!(called, Ok((3, 0)), "step {step}: a call");
            let status = pal::hypercall(MODE, Command::UNREGISTER.0, [window(0), 0, 0, 0]);
            check_eq!(status, 0, "step {step}: unregistering");
        });
        let pages = (0..COUNT).map(|page| PLACES[0] + page * step * PAGE);
        let closed = pages.filter(|&page| write64(page, page) != Ok(()) || read64(page) != Ok(page)).count();
        check_eq!(closed, 0, "step {step}: pages that are not the guest's again");
    }
}
