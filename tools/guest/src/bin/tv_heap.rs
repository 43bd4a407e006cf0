//! A process that takes all of the budget and then shares more than a PAL can have is refused, and the machine goes on.
//! memory: 1024
//! cmdline: log=warn
//! hypapp: trustvisor
//! bare: no
#![no_std]
#![no_main]
#![expect(clippy::cast_possible_truncation, reason = "addresses below 4 GiB")]

use guest::memory::{FREE, write32};
use guest::pal;
use guest::pal::prelude::*;
use trustvisor::section::{SectionRecord, SectionType};

guest!(main);

const MODE: Mode = Mode::User64;
const NARROW: Mode = Mode::CompatibilityUser32;
/// The most pages of a PAL.
const PAGES: u64 = 4096;
const LARGE: u64 = 0x100_0000;
const LISTS: u64 = FREE + 0x4_0000;

fn main() {
    let small = Pal::place(NARROW, 0, snippet!(code32: "ret"));
    check_eq!(small.register(&[]), 0, "a small PAL");
    let section = |kind: SectionType, start, pages: u64| SectionRecord {
        kind: kind as u32,
        pages: pages as u32,
        start: pal::user(MODE, start),
    };
    let mut taken = 0;
    let mut rest = PAGES;
    // From 16 MiB on, PALs of 4096 pages, and then of fewer.
    let mut start = LARGE;
    while rest >= 16 && start < 56 * LARGE {
        let sections = [
            section(SectionType::Code, start, 1),
            section(SectionType::Stack, start + PAGE, 1),
            section(SectionType::Data, start + 2 * PAGE, rest - 2),
        ];
        if pal::register(MODE, &sections, &[], sections[0].start) == 0 {
            taken += rest;
            start += rest * PAGE;
        } else {
            rest /= 2;
        }
    }
    check!(taken > 20_000, "{taken} pages are PALs'");
    for pieces in 1..=31_u64 {
        for index in 0..pieces {
            let _ = write32(LISTS + 4 * index, (2 * LARGE + index * LARGE) as u32);
            let _ = write32(LISTS + 0x1000 + 4 * index, LARGE as u32);
        }
        let status = pal::hypercall(NARROW, Command::SHARE.0, [small.entry(), LISTS, LISTS + 0x1000, pieces]);
        check_eq!(status, Status::SECTION_SIZE.0, "sharing {pieces} pieces of 16 MiB");
    }
    check_eq!(small.unregister(), 0, "unregistering");
}
