//! Latency: an entry with an EPT pointer that the hypervisor has no tables for is short, however many it has to drop.
//! memory: 128
//! cmdline: log=warn nested=on nested_pool=32 nested_ept02=512
//! bare: no
#![no_std]
#![no_main]

use guest::cpu::rdtsc;
use guest::vmx::prelude::*;
use guest::vmx::{Ept, allocate_run, instruction, read, trial, write};
use guest::{Mode, Regs, println, snippet};

guest!(main);

const POINTERS: u64 = 2200;
/// Write-back, four levels.
const POINTER: u64 = 3 << 3 | 6;
/// Ticks that an entry and an exit, or INVEPT, may take.
const LIMIT: u64 = 100_000;

fn main() {
    enter_operation();
    let ept = Ept::identity();
    let mut nested = Guest::new(trial::perform);
    nested.use_ept(&ept);
    let roots = allocate_run(POINTERS);
    let (mut longest, mut at) = (0, 0);
    for number in 0..POINTERS {
        let root = roots + 4096 * number;
        write(root, read(ept.root()));
        nested.write(vmcs::EPT_POINTER, root | POINTER);
        trial::begin(&mut nested, Mode::Kernel64, snippet!("nop"), Regs::default());
        let start = rdtsc();
        let reason = nested.run();
        let ticks = rdtsc() - start;
        check_eq!(reason, ExitReason::VMCALL, "a new pointer");
        if ticks > longest {
            (longest, at) = (ticks, number);
        }
    }
    println!("{longest} ticks at most, with pointer {at}");
    check!(longest < LIMIT, "the entry with pointer {at} took {longest} ticks");
    let start = rdtsc();
    let result = instruction::invept(2, [0, 0]);
    let ticks = rdtsc() - start;
    check_eq!(result, Ok(()), "INVEPT of all");
    println!("INVEPT of all took {ticks} ticks");
    check!(ticks < LIMIT, "INVEPT of all took {ticks} ticks");
    leave_operation();
}
