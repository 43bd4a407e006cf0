//! MTRRs: legal values come back, reserved bits and types raise #GP(0), and memory keeps its contents.
#![no_std]
#![no_main]

use guest::cpu::{cpuid, rdmsr, wrmsr};
use guest::memory::{FREE, low, read64, write64};
use guest::{Fault, check, check_eq, guest, println};
use x86::msr::Msr;

guest!(main);

const TYPES: [u64; 5] = [0, 1, 4, 5, 6];
const FIXED: [u32; 11] = [0x250, 0x258, 0x259, 0x268, 0x269, 0x26a, 0x26b, 0x26c, 0x26d, 0x26e, 0x26f];

fn main() {
    let Ok(capabilities) = rdmsr(Msr::IA32_MTRRCAP) else {
        check!(false, "IA32_MTRRCAP can be read");
        return;
    };
    let count = low(capabilities & 0xff);
    println!("IA32_MTRRCAP {capabilities:#x}, default type {:x?}", rdmsr(Msr::IA32_MTRR_DEF_TYPE));
    refused(0xfe, capabilities);
    for place in 0..64 {
        check_eq!(write64(FREE + place * 0x8000, place * 3), Ok(()), "write");
    }
    default_type();
    for msr in FIXED {
        fixed(msr);
    }
    for pair in 0..count {
        variable(pair);
    }
    for msr in [0x200 + 2 * count, 0x201 + 2 * count] {
        check_eq!(rdmsr(Msr(msr)), Err(Fault::GP), "MTRR {msr:#x} behind the last pair");
        refused(msr, 0);
    }
    overlaps();
    for place in 0..64 {
        check_eq!(read64(FREE + place * 0x8000), Ok(place * 3), "memory after all those types");
    }
}

fn default_type() {
    let old = rdmsr(Msr::IA32_MTRR_DEF_TYPE).unwrap_or(0);
    for kind in 0..16 {
        let value = old & !0xff | kind;
        if TYPES.contains(&kind) { kept(0x2ff, value) } else { refused(0x2ff, value) }
    }
    for enables in [0, 0x400, 0x800, 0xc00] {
        kept(0x2ff, old & !0xc00 | enables);
    }
    for bit in (3..10).chain(12..64) {
        refused(0x2ff, old | 1 << bit);
    }
}

fn fixed(msr: u32) {
    for kind in TYPES {
        kept(msr, kind * 0x0101_0101_0101_0101);
    }
    for byte in 0..8 {
        for kind in [2, 3, 7, 8, 0x80, 0xff] {
            refused(msr, 0x0606_0606_0606_0606 & !(0xff << (8 * byte)) | kind << (8 * byte));
        }
    }
}

fn variable(pair: u32) {
    let (base, mask) = (0x200 + 2 * pair, 0x201 + 2 * pair);
    let width = cpuid(0x8000_0008, 0).eax & 0xff;
    let all = ((1_u64 << width) - 1) & !0xfff;
    for kind in 0..16 {
        if TYPES.contains(&kind) { kept(base, all | kind) } else { refused(base, kind) }
    }
    for bit in (8..12).chain(width..64) {
        refused(base, 6 | 1 << bit);
    }
    kept(mask, all);
    kept(mask, 0);
    for bit in (0..11).chain(width..64) {
        refused(mask, 1 << bit);
    }
}

/// Everything uncacheable, everything write-through, and both at once, while memory is in use.
fn overlaps() {
    let width = cpuid(0x8000_0008, 0).eax & 0xff;
    let all = ((1_u64 << width) - 1) & !0xfff;
    let old = [0x200, 0x201, 0x202, 0x203, 0x2ff].map(|msr| (msr, rdmsr(Msr(msr)).unwrap_or(0)));
    for (first, second) in [(0, 4), (4, 6), (6, 0), (5, 0), (1, 1), (1, 4)] {
        let words = [first, 0x800, second, 0x800 | all & !0x3f_ffff, 0xc06];
        for ((msr, _), value) in old.iter().zip(words) {
            check_eq!(wrmsr(Msr(*msr), value), Ok(()), "MTRR {msr:#x} = {value:#x}");
            check_eq!(rdmsr(Msr(*msr)), Ok(value), "MTRR {msr:#x}");
        }
        check_eq!(write64(FREE + 0x1000, first), Ok(()), "write");
        check_eq!(read64(FREE + 0x1000), Ok(first), "memory of types {first} and {second}");
    }
    for (msr, value) in old.iter().rev() {
        check_eq!(wrmsr(Msr(*msr), *value), Ok(()), "MTRR {msr:#x} as before");
    }
}

fn kept(msr: u32, value: u64) {
    let old = rdmsr(Msr(msr));
    check_eq!(wrmsr(Msr(msr), value), Ok(()), "MTRR {msr:#x} = {value:#x}");
    check_eq!(rdmsr(Msr(msr)), Ok(value), "MTRR {msr:#x}");
    check_eq!(wrmsr(Msr(msr), old.unwrap_or(0)), Ok(()), "MTRR {msr:#x} as before");
}

fn refused(msr: u32, value: u64) {
    let old = rdmsr(Msr(msr));
    check_eq!(wrmsr(Msr(msr), value), Err(Fault::GP), "MTRR {msr:#x} = {value:#x}");
    check_eq!(rdmsr(Msr(msr)), old, "MTRR {msr:#x} after a refused write");
}
