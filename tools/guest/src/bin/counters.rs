//! Performance counters count the guest's instructions and none of the hypervisor's, which serves exits in between.
#![no_std]
#![no_main]

use guest::cpu::{cpuid, rdmsr, rdmsr_existing, wrmsr, wrmsr_existing};
use guest::{check, check_eq, guest};
use x86::msr::Msr;

guest!(main);

const CONTROL: Msr = Msr::IA32_PERF_GLOBAL_CTRL;
const FIXED_CONTROL: Msr = Msr(0x38d);
/// Counts instructions.
const FIXED_COUNTER: Msr = Msr(0x309);
const EXITS: u64 = 1000;

fn main() {
    let is_told_of = cpuid(0, 0).eax >= 0xa && cpuid(0xa, 0).eax & 0xff >= 2;
    check_eq!(rdmsr(CONTROL).is_ok(), is_told_of, "counters are there where CPUID tells of them");
    if rdmsr(CONTROL).is_err() {
        return;
    }
    let old = rdmsr_existing(CONTROL);
    let fixed = 1 << 32;
    check!(wrmsr(CONTROL, 1 << 63).is_err(), "a reserved bit");
    check_eq!(rdmsr(CONTROL), Ok(old), "a write that faults changes nothing");
    // At every privilege level.
    check_eq!(wrmsr(FIXED_CONTROL, 3).and(wrmsr(FIXED_COUNTER, 0)), Ok(()), "a counter");
    wrmsr_existing(CONTROL, fixed);
    for _ in 0..EXITS {
        cpuid(0, 0);
    }
    check_eq!(rdmsr(CONTROL), Ok(fixed), "exits leave the switch as it is");
    wrmsr_existing(CONTROL, 0);
    let counted = rdmsr_existing(FIXED_COUNTER);
    wrmsr_existing(CONTROL, old);
    // The loop's own; a hypervisor's way is at least a hundred for each exit.
    check!((EXITS..EXITS * 60).contains(&counted), "{counted} instructions counted around {EXITS} exits");
}
