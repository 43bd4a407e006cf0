//! Latency: an MSR area full of MTRRs does not keep its processor, and the others, longer than an area of other MSRs.
//! cmdline: nested=on
//! bare: no
#![no_std]
#![no_main]

use guest::cpu::{rdmsr_existing, rdtsc};
use guest::println;
use guest::vmx::prelude::*;
use guest::vmx::{allocate_run, write};
use x86::msr::Msr;

guest!(main);

/// Most entries that IA32_VMX_MISC of any model recommends.
const ENTRIES: u32 = 512;
const ENTRY_BYTES: u64 = 16;
/// Ticks that an entry of an area may take, and the changes of memory types that the whole area comes to.
const TICKS_PER_ENTRY: u64 = 5_000;

fn main() {
    enter_operation();
    let mut nested = Guest::new(nothing);
    let without = ticks(&mut nested);
    let area = allocate_run(2);
    let old = rdmsr_existing(Msr::IA32_MTRR_DEF_TYPE);
    for index in 0..u64::from(ENTRIES) {
        write(area + ENTRY_BYTES * index, Msr::IA32_MTRR_DEF_TYPE.0.into());
        // Uncacheable and write-back by turns; the last is as it was.
        write(area + ENTRY_BYTES * index + 8, if index % 2 == 0 { old ^ 6 } else { old });
    }
    nested.write(vmcs::ENTRY_MSR_LOAD_ADDRESS, area);
    nested.write(vmcs::ENTRY_MSR_LOAD_COUNT, ENTRIES);
    let with = ticks(&mut nested);
    println!("an entry and an exit take {without} ticks, with {ENTRIES} MTRRs {with}");
    check!(with < without + u64::from(ENTRIES) * TICKS_PER_ENTRY, "{with} ticks");
    check_eq!(rdmsr_existing(Msr::IA32_MTRR_DEF_TYPE), old, "the last entry counts");
    nested.clear();
    leave_operation();
}

/// Ticks of an entry and an exit; the second time, when everything is there.
fn ticks(nested: &mut Guest) -> u64 {
    let mut ticks = 0;
    for _ in 0..2 {
        nested.call(nothing);
        let start = rdtsc();
        let _ = nested.run();
        ticks = rdtsc() - start;
        check!(nested.has_ended(), "the guest ran");
    }
    ticks
}

extern "C" fn nothing() {}
