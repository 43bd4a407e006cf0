//! Latency: INVEPT is short, however sparse the tables are that a hypervisor in the guest filled, and so is what follows.
//! memory: 256
//! cmdline: log=warn nested=on nested_pool=8
//! bare: no
#![no_std]
#![no_main]

use guest::cpu::{rdtsc, read_cr3};
use guest::vmx::prelude::*;
use guest::vmx::{Ept, allocate, instruction, read, trial, write};
use guest::{Mode, Regs, println, snippet};

guest!(main);

/// GiBs of L2's memory, from the first of these on; each takes a table of its own, of one entry.
const REGIONS: u64 = 1000;
const FIRST: u64 = 4;
/// Where L2 has a page of each side by side.
const SLOT: u64 = 100;
/// Ticks that INVEPT may take, and on average L2's first touch of a GiB behind it.
const LIMIT: u64 = 100_000;
const TOUCH_LIMIT: u64 = 20_000;

fn main() {
    enter_operation();
    let mut ept = Ept::identity();
    let mut nested = Guest::new(trial::perform);
    nested.use_ept(&ept);
    map_regions(&mut ept);
    check_eq!(instruction::invept(2, [0, 0]), Ok(()), "INVEPT of all");
    for (kind, name) in [(1, "one context"), (2, "all contexts"), (1, "one context again")] {
        let regs = Regs { rdi: SLOT << 39, rcx: REGIONS, ..Regs::default() };
        let code = snippet!("2: mov rax, [rdi]", "add rdi, 0x1000", "dec rcx", "jnz 2b");
        trial::begin(&mut nested, Mode::Kernel64, code, regs);
        let start = rdtsc();
        check_eq!(nested.run(), ExitReason::VMCALL, "touching all");
        let touch = (rdtsc() - start) / REGIONS;
        check_eq!(trial::result().0, Ok(()), "touching all");
        let start = rdtsc();
        let result = instruction::invept(kind, [if kind == 1 { ept.pointer() } else { 0 }, 0]);
        let ticks = rdtsc() - start;
        check_eq!(result, Ok(()), "INVEPT of {name}");
        println!("INVEPT of {name} took {ticks} ticks, a touch before it {touch}");
        check!(ticks < LIMIT, "INVEPT of {name} took {ticks} ticks");
        check!(touch < TOUCH_LIMIT, "a touch took {touch} ticks");
    }
    leave_operation();
}

fn map_regions(ept: &mut Ept) {
    let (third, second, directory) = (allocate(), allocate(), allocate());
    write((read_cr3() & !0xfff) + 8 * SLOT, third | 3);
    write(third, second | 3);
    write(directory, 0x40_0000 | 1 << 7 | 6 << 3 | 7);
    for number in 0..REGIONS {
        let entry = second + 8 * (number / 512);
        if number % 512 == 0 {
            write(entry, allocate() | 3);
        }
        write((read(entry) & !0xfff) + 8 * (number % 512), (FIRST + number) << 30 | 3);
        write(ept.entry((FIRST + number) << 30, 3), directory | 7);
    }
}
