//! What a process of ring 3 can do to others by hypercalls: no command keeps interrupts waiting for 100,000 ticks, and nobody takes all there is.
//! memory: 256
//! cmdline: log=warn
//! hypapp: trustvisor
//! bare: no
#![no_std]
#![no_main]
#![expect(clippy::cast_possible_truncation, reason = "addresses below 4 GiB")]

use guest::memory::{FREE, write32, write64};
use guest::pal::prelude::*;
use guest::pal::{self, PALS};
use guest::space::{Space, USER, WRITABLE, window};
use guest::{latency, println};
use trustvisor::section::{SectionRecord, SectionType};

guest!(main);

const MODE: Mode = Mode::User64;
/// Most ticks without an interrupt.
const LIMIT: u64 = 100_000;
/// Where 512 pages are that follow each other, and where single pages are.
const RUN: u64 = PALS + 0x10_0000;
const SCATTERED: u64 = PALS + 0x200_0000;

fn main() {
    tests();
    scrambled("with few boundaries");
    fill();
    scrambled("with all boundaries taken");
    others();
}

fn section(kind: SectionType, start: u64, pages: u64) -> SectionRecord {
    SectionRecord { kind: kind as u32, pages: pages as u32, start }
}

fn longest<T>(what: &str, act: impl FnOnce() -> T) -> T {
    let (result, gap) = latency::longest(act);
    println!("{what}: longest without an interrupt {gap}");
    check!(gap < LIMIT, "{what}: {gap} ticks without an interrupt");
    result
}

fn tests() {
    longest("a hundred TESTs", || {
        (0..100).for_each(|_| {
            let _ = pal::hypercall(MODE, Command::TEST.0, [0; 4]);
        })
    });
}

/// A PAL of 500 pages that follow each other in memory, every other one of them first.
fn scrambled(what: &str) {
    let space = Space::new(FREE + 0x4_0000);
    for index in 0..500 {
        let page = if index < 250 { 2 * index } else { 2 * (index - 250) + 1 };
        space.map(index, RUN + page * PAGE, USER | WRITABLE);
        let _ = write64(RUN + page * PAGE, 0);
    }
    space.map(510, PALS, USER | WRITABLE);
    space.map(511, PALS + PAGE, USER | WRITABLE);
    space.within(|| {
        let sections = [
            section(SectionType::Data, window(0), 500),
            section(SectionType::Code, window(510), 1),
            section(SectionType::Stack, window(511), 1),
        ];
        let status = longest("registering 500 pages", || pal::register(MODE, &sections, &[], window(510)));
        println!("{what}: status {status}");
        let status = longest("unregistering 500 pages", || {
            pal::hypercall(MODE, Command::UNREGISTER.0, [window(510), 0, 0, 0])
        });
        println!("{what}: status {status}");
    });
}

/// PALs of a single process, of 64 single pages each, until no more are taken.
fn fill() {
    let mut taken = 0;
    for number in 0..400 {
        let start = SCATTERED + number * 128 * PAGE;
        let mut sections = [section(SectionType::Data, 0, 1); 64];
        for (index, section) in (0..).zip(&mut sections) {
            section.start = pal::user(MODE, start + 2 * index * PAGE);
        }
        sections[0].kind = SectionType::Code as u32;
        sections[1].kind = SectionType::Stack as u32;
        let status = pal::register(MODE, &sections, &[], sections[0].start);
        if status != 0 {
            println!("PAL {number} of 64 pages: status {status}");
            break;
        }
        taken += 1;
    }
    println!("{taken} PALs of 64 pages each, {} KiB, are taken", taken * 256);
}

/// Another process.
fn others() {
    let pal = Pal::place(MODE, 2, snippet!("ret"));
    let status = pal.register(&[(ParameterType::Integer, 0); 2]);
    println!("a small PAL of another process: status {status}");
    check!(status != Status::OUT_OF_MEMORY.0, "another process can have a PAL");
    let _ = write32(FREE, 0);
}
