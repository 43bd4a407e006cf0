//! Boot sector entry: the state in which a BIOS starts a boot sector, and a sane memory map.
#![no_std]
#![no_main]

use guest::{boot, check, check_eq, cpu, guest, println};

guest!(main);

fn main() {
    println!("hello, hypervisor={}", cpu::under_hypervisor());
    let entry = boot::entry_state();
    println!("entry {entry:x?}");
    check_eq!(entry.cs, 0, "CS at 0:7C00");
    let expected_drive = if cpu::under_hypervisor() { 0x81 } else { 0x80 };
    check_eq!(entry.dl, expected_drive, "DL is the boot drive");
    check_eq!(entry.cr0 & 0x8000_0001, 0, "CR0.PG and CR0.PE in real mode");
    check!(entry.flags & 0x200 != 0, "interrupts are on, FLAGS {:#x}", entry.flags);
    check!(entry.flags & 0x100 == 0, "no single step, FLAGS {:#x}", entry.flags);
    check!(entry.a20, "address line 20 is on");
    let map = boot::e820_24();
    check!(map.len() >= 4, "E820 has records, {} seen", map.len());
    check!(map.iter().any(|r| r.kind == 1 && r.base() == 0), "usable memory starts at 0");
    check!(map.iter().any(|r| r.kind == 1 && r.base() == 0x10_0000), "usable memory at 1 MiB");
}
