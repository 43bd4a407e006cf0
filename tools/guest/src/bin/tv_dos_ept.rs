//! One process's PALs, a page in each 2 MiB of memory, slow down nobody else's memory, and leave room for others.
//! memory: 3072
//! cmdline: log=warn
//! hypapp: trustvisor
//! bare: no
#![no_std]
#![no_main]

use guest::boot;
use guest::cpu::rdtsc;
use guest::pal;
use guest::pal::prelude::*;
use guest::{Regs, println, run};
use trustvisor::section::{CAPACITY, SectionRecord, SectionType};

guest!(main);

const MODE: Mode = Mode::User64;
const REGION: u64 = 0x20_0000;
/// The first one that is used.
const FIRST: u64 = 4;
const SECTIONS: u64 = CAPACITY as u64;

fn main() {
    let memory = boot::e820_24().iter().find(|r| r.kind == 1 && (r.base()..r.end()).contains(&REGION));
    let regions = memory.map_or(0, |memory| memory.end().min(1 << 32)) / REGION - 1;
    // The first touch of each may be a miss.
    (0..2).for_each(|_| _ = sweep(regions));
    println!("{} ticks a touch of {regions} regions before", sweep(regions));
    let mut taken = 0;
    let status = loop {
        let first = FIRST + taken * SECTIONS;
        if first + SECTIONS > regions {
            break 0;
        }
        let status = register(first);
        if status != 0 {
            break status;
        }
        taken += 1;
    };
    println!("{taken} PALs of {SECTIONS} pages, then status {status}");
    check!(taken >= 4, "{taken} PALs are taken");
    check_eq!(status, Status::QUOTA.0, "the first that is refused");
    (0..2).for_each(|_| _ = sweep(regions));
    let ticks = sweep(regions);
    println!("{ticks} ticks a touch after");
    check!(ticks < 100, "a touch of memory that is nobody's PAL takes {ticks} ticks");
    let other = Pal::place(Mode::CompatibilityUser32, 2, snippet!(code32: "ret"));
    check!(other.register(&[]) != Status::OUT_OF_MEMORY.0, "a PAL beside those");
}

/// A PAL of a page in each region from `first` on.
fn register(first: u64) -> u32 {
    let mut sections = [SectionRecord { kind: SectionType::Data as u32, pages: 1, start: 0 }; CAPACITY];
    for (region, section) in (first..).zip(&mut sections) {
        section.start = pal::user(MODE, region * REGION + 0x1000);
    }
    sections[0].kind = SectionType::Code as u32;
    sections[1].kind = SectionType::Stack as u32;
    pal::register(MODE, &sections, &[], sections[0].start)
}

/// Ticks that a touch of an ordinary page in each region takes.
fn sweep(regions: u64) -> u64 {
    let count = regions - FIRST;
    let mut regs = Regs { rdi: FIRST * REGION + 0x8000, rcx: count, ..Regs::default() };
    let start = rdtsc();
    let code = snippet!("2: mov rax, [rdi]", "add rdi, 0x200000", "dec rcx", "jnz 2b");
    check_eq!(run(Mode::Kernel64, code, &mut regs), Ok(()), "touching memory");
    (rdtsc() - start) / count
}
