//! INIT clears the registers of control-flow enforcement, and not those of SYSENTER.
//! cpus: 2
//! model: sapphire_rapids
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};

use guest::cpu::{cpuid, rdmsr, wrmsr_existing};
use guest::{check, check_eq, guest, needs, smp};
use x86::msr::Msr;

guest!(main);

/// A register, a value that it takes, and whether INIT clears it.
const REGISTERS: [(u32, u64, bool); 8] = [
    (0x6a0, 3, true),
    (0x6a2, 3, true),
    (0x6a4, 0x1000, true),
    (0x6a5, 0x2000, true),
    (0x6a6, 0x3000, true),
    (0x6a7, 0x4000, true),
    (0x6a8, 0x5000, true),
    (0x174, 0x18, false),
];
const ABSENT: u64 = u64::MAX;
static SEEN: [AtomicU64; 8] = [const { AtomicU64::new(0) }; 8];

fn main() {
    needs!(cpuid(7, 0).ecx & 1 << 7 != 0, "shadow stacks");
    check!(smp::start_others(1), "start");
    check!(smp::run_on(1, set) && smp::run_on(1, look), "the other CPU sets its registers");
    for ((msr, value, _), seen) in REGISTERS.iter().zip(&SEEN) {
        check_eq!(seen.load(Ordering::SeqCst), *value, "register {msr:#x} as written");
    }
    check!(smp::start_others(1), "second start");
    check!(smp::run_on(1, look), "the other CPU looks");
    for ((msr, value, is_cleared), seen) in REGISTERS.iter().zip(&SEEN) {
        let expected = if *is_cleared { 0 } else { *value };
        check_eq!(seen.load(Ordering::SeqCst), expected, "register {msr:#x} after INIT");
    }
}

fn set() {
    for (msr, value, _) in REGISTERS {
        wrmsr_existing(Msr(msr), value);
    }
}

fn look() {
    for ((msr, ..), seen) in REGISTERS.iter().zip(&SEEN) {
        seen.store(rdmsr(Msr(*msr)).unwrap_or(ABSENT), Ordering::SeqCst);
    }
}
