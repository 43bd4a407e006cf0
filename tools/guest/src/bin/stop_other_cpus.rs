//! A stop halts every CPU: one that writes to the guest's console without a pause falls silent.
//! cpus: 3
//! hypapp: stop
//! bare: no
//! expect-hypervisor: stop: runtime: the guest asked for a stop
//! expect-hypervisor: stop: end of dump
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU32, Ordering};
use guest::cpu::{cpuid, wait, wait_until};
use guest::{Mode, Regs, check, guest, println, run, smp, snippet};

guest!(main);

static LINES: AtomicU32 = AtomicU32::new(0);
static EXITS: AtomicU32 = AtomicU32::new(0);

fn main() {
    check!(smp::start_each(2), "start of the others");
    smp::begin_on(1, write);
    smp::begin_on(2, exit);
    let both = || LINES.load(Ordering::SeqCst) > 2 && EXITS.load(Ordering::SeqCst) > 2;
    check!(wait_until(smp::PATIENCE, both), "both others work");
    let mut regs = Regs { rax: 1, rbx: 0x5354_4f50, ..Regs::default() };
    let result = run(Mode::Kernel64, snippet!("vmcall"), &mut regs);
    println!("the guest goes on, which it must not: {result:?}");
}

/// Never leaves the guest by itself.
fn write() {
    loop {
        println!("line {}", LINES.fetch_add(1, Ordering::SeqCst));
        // The others have to get the console too.
        wait(100_000);
    }
}

/// Leaves it all the time.
fn exit() {
    loop {
        let _ = cpuid(0, 0);
        if EXITS.fetch_add(1, Ordering::SeqCst).is_multiple_of(100_000) {
            println!("still here");
        }
    }
}
