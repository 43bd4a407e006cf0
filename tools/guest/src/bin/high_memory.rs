//! Memory beyond 16 GiB is listed, and every word of it is its own, on either side of each border.
//! memory: 17408
#![no_std]
#![no_main]

use guest::boot;
use guest::cpu::read_cr3;
use guest::memory::{FREE, read64, write64};
use guest::{check, check_eq, guest, println};

guest!(main);

const GIB: u64 = 1 << 30;
/// Page-table bits: present, writable; a page where a table could be.
const TABLE: u64 = 3;
const PAGE: u64 = 0x83;
const LARGE_PAGE: u64 = 1 << 21;

fn main() {
    let end = boot::e820_24().iter().filter(|record| record.kind == 1).map(boot::Record::end).max();
    let end = end.unwrap_or(0);
    println!("memory ends at {end:#x}");
    check_eq!(end, 17 * GIB, "end of the memory map");
    let places = [4 * GIB, 8 * GIB - 8, 8 * GIB, 16 * GIB - 8, 16 * GIB, 16 * GIB + LARGE_PAGE, end - 8];
    for (place, value) in places.into_iter().zip(1..) {
        map(place);
        check_eq!(write64(place, pattern(value)), Ok(()), "write at {place:#x}");
    }
    for (place, value) in places.into_iter().zip(1..) {
        check_eq!(read64(place), Ok(pattern(value)), "word at {place:#x}");
        // Nor has it come to where the address would be with fewer bits.
        check!(read64(place % (4 * GIB)) != Ok(pattern(value)), "{place:#x} without its upper bits");
    }
}

fn pattern(value: u64) -> u64 {
    value * 0x0123_4567_89ab_cdef
}

/// Maps the large page of `place` at its own address, by a directory for each GiB.
fn map(place: u64) {
    let directory = FREE + 0x1000 * (place / GIB);
    let pointers = read64(read_cr3()).unwrap_or(0) & !0xfff;
    let page = place & !(LARGE_PAGE - 1);
    let entries = [
        (directory + 8 * (page / LARGE_PAGE % 512), page | PAGE),
        (pointers + 8 * (place / GIB), directory | TABLE),
    ];
    for (entry, value) in entries {
        check_eq!(write64(entry, value), Ok(()), "a table at {entry:#x}");
    }
}
