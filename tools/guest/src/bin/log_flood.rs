//! What any process can have a hypapp log takes no time for long, and what was left out is counted.
//! hypapp: helloworld
//! bare: no
//! expect-hypervisor: hello, world, from cpu 0
//! expect-hypervisor: 984 more lines of helloworld
#![no_std]
#![no_main]

use guest::cpu::rdtsc;
use guest::{Mode, Regs, check, check_eq, guest, println, run, snippet};

guest!(main);

const CALLS: u64 = 1000;
/// Behind the lines that come through.
const BURST: u64 = 16;

fn main() {
    let call = || {
        let mut regs = Regs { rax: 0x1234, ..Regs::default() };
        check_eq!(run(Mode::User64, snippet!("vmcall"), &mut regs), Ok(()), "a call");
    };
    for _ in 0..BURST {
        call();
    }
    let start = rdtsc();
    for _ in BURST..CALLS {
        call();
    }
    let ticks = (rdtsc() - start) / (CALLS - BURST);
    println!("{ticks} ticks a call behind the first lines");
    check!(ticks < 6000, "{ticks} ticks for a line that nobody sees");
}
