//! Latency: a write of an MTRR does not hold its CPU for long where PALs made the tables small all over memory.
//! memory: 3072
//! cmdline: log=warn
//! hypapp: trustvisor
//! bare: no
#![no_std]
#![no_main]

use guest::boot;
use guest::cpu::{rdmsr_existing, rdtsc, wrmsr_existing};
use guest::pal;
use guest::pal::prelude::*;
use guest::{Regs, println, run};
use trustvisor::section::{CAPACITY, SectionRecord, SectionType};
use x86::msr::Msr;

guest!(main);

const MODE: Mode = Mode::User64;
/// A region has a PAL's page, which takes it a table.
const REGION: u64 = 0x20_0000;
const FIRST: u64 = 4;
const SECTIONS: u64 = CAPACITY as u64;
/// Ticks that a write may take.
const LIMIT: u64 = 100_000;
/// Variable-range MTRRs that the firmware leaves alone.
const BASE: Msr = Msr(0x20c);
const MASK: Msr = Msr(0x20d);

fn main() {
    let memory = boot::e820_24().iter().find(|r| r.kind == 1 && (r.base()..r.end()).contains(&REGION));
    let regions = memory.map_or(0, |memory| memory.end().min(1 << 32)) / REGION - 1;
    let firsts = (FIRST..).step_by(CAPACITY).take_while(|first| first + SECTIONS <= regions);
    let taken = firsts.map_while(|first| (register(first) == 0).then_some(first)).count();
    println!("{taken} PALs of {SECTIONS} pages");
    check!(taken >= 4, "{taken} PALs are taken");
    let old = rdmsr_existing(Msr::IA32_MTRR_DEF_TYPE);
    let holes = [(BASE, 0x1000), (MASK, 0x1800), (MASK, 0x3800), (MASK, 0)];
    let types = [old ^ 6, old].map(|value| (Msr::IA32_MTRR_DEF_TYPE, value));
    for (msr, value) in types.into_iter().chain(types).chain(holes) {
        sweep(regions);
        let start = rdtsc();
        wrmsr_existing(msr, value);
        let ticks = rdtsc() - start;
        println!("MSR {:#x} = {value:#x}: {ticks} ticks", msr.0);
        check!(ticks < LIMIT, "MSR {:#x} = {value:#x}: {ticks} ticks", msr.0);
    }
}

/// Registers a PAL of a page in each region from `first` on.
fn register(first: u64) -> u32 {
    let mut sections = [SectionRecord { kind: SectionType::Data as u32, pages: 1, start: 0 }; CAPACITY];
    for (region, section) in (first..).zip(&mut sections) {
        section.start = pal::user(MODE, region * REGION + 0x1000);
    }
    sections[0].kind = SectionType::Code as u32;
    sections[1].kind = SectionType::Stack as u32;
    pal::register(MODE, &sections, &[], sections[0].start)
}

/// Touches a page that is no PAL's in each region, so that the tables are there.
fn sweep(regions: u64) {
    let mut regs = Regs { rdi: FIRST * REGION + 0x8000, rcx: regions - FIRST, ..Regs::default() };
    let code = snippet!("2: mov rax, [rdi]", "add rdi, 0x200000", "dec rcx", "jnz 2b");
    check_eq!(run(Mode::Kernel64, code, &mut regs), Ok(()), "touching memory");
}
