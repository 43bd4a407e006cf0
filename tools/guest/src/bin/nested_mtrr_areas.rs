//! MSR areas that change what all processors share: two processors load MTRRs by entries and exits at the same time.
//! cpus: 2
//! hypapp: intercept
//! bare: no
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};

use guest::cpu::{rdmsr_existing, wait_until};
use guest::smp;
use guest::vmx::prelude::*;
use guest::vmx::{allocate, read, verdict, write};
use x86::msr::Msr;

guest!(main);

const ROUNDS: u64 = 150;
/// The first variable range, over memory that nobody has.
const BASE: u64 = 0x200;
const MASK: u64 = 0x201;
/// The hypapp's.
const HYPAPP: u64 = 0x1b0;
static DONE: AtomicU64 = AtomicU64::new(0);

fn main() {
    check!(smp::start_others(1), "two CPUs");
    smp::begin_on(1, change);
    change();
    check!(wait_until(smp::PATIENCE, || smp::is_ready(1)), "the other CPU ends");
    check_eq!(DONE.load(Ordering::SeqCst), 2 * ROUNDS, "rounds of both");
}

fn put(area: u64, index: u64, msr: u64, value: u64) {
    write(area + 16 * index, msr);
    write(area + 16 * index + 8, value);
}

/// Each CPU: the last entry of a list wins, and everybody goes on.
fn change() {
    enter_operation();
    let mut nested = Guest::new(verdict::end);
    let (load, store, host) = (allocate(), allocate(), allocate());
    nested.write(vmcs::ENTRY_MSR_LOAD_ADDRESS, load);
    nested.write(vmcs::EXIT_MSR_STORE_ADDRESS, store);
    nested.write(vmcs::EXIT_MSR_LOAD_ADDRESS, host);
    nested.write(vmcs::ENTRY_MSR_LOAD_COUNT, 3);
    nested.write(vmcs::EXIT_MSR_STORE_COUNT, 2);
    nested.write(vmcs::EXIT_MSR_LOAD_COUNT, 2);
    put(store, 0, HYPAPP, 0);
    put(store, 1, MASK, 0);
    for round in 0..ROUNDS {
        let kind = round % 2 * 6;
        put(load, 0, MASK, 0);
        put(load, 1, BASE, 0x8000_0000 | kind);
        put(load, 2, HYPAPP, 0x77_0000);
        put(host, 0, MASK, if round % 3 == 0 { 0xf_f000_0800 } else { 0 });
        put(host, 1, HYPAPP, 0x77_0000);
        nested.call(verdict::end);
        check_eq!(nested.run(), ExitReason::VMCALL, "round {round}");
        check_eq!(read(store + 8), 0x77_0000, "the hypapp's register");
        check_eq!(rdmsr_existing(Msr(0x1b0)), 0x77_0000, "the hypapp's register in the hypervisor");
        DONE.fetch_add(1, Ordering::SeqCst);
    }
    nested.clear();
    leave_operation();
}
