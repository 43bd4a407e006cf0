//! A dump ends with the last lines of the log, also where the consoles were to show none of them.
//! hypapp: stop
//! cmdline: log=error
//! bare: no
//! expect-hypervisor: log [0 INFO start] stage=guest
//! expect-hypervisor: stop: end of dump
#![no_std]
#![no_main]

use guest::{Mode, Regs, guest, println, run, snippet};

guest!(main);

fn main() {
    let mut regs = Regs { rax: 1, rbx: 0x5354_4f50, ..Regs::default() };
    let result = run(Mode::Kernel64, snippet!("vmcall"), &mut regs);
    println!("the guest goes on, which it must not: {result:?}");
}
