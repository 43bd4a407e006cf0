//! A page fault in the hypervisor stops it with a reason, a dump and a backtrace, and every CPU with it.
//! cpus: 2
//! hypapp: stop
//! bare: no
//! expect-hypervisor: stop: runtime: exception 14 in the hypervisor
//! expect-hypervisor: backtrace
//! expect-hypervisor: Guest RIP =
//! expect-hypervisor: stop: end of dump
#![no_std]
#![no_main]

use guest::{Mode, Regs, guest, println, run, smp, snippet};

guest!(main);

fn main() {
    println!("other CPUs started: {}", smp::start_others(1));
    let mut regs = Regs { rax: 3, rbx: 0x5354_4f50, ..Regs::default() };
    let result = run(Mode::Kernel64, snippet!("vmcall"), &mut regs);
    println!("the guest goes on, which it must not: {result:?}");
}
