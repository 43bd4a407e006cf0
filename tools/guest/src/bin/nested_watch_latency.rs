//! Latency: behind a write to an MSR bitmap, an entry is short, however many tables a hypervisor in the guest filled.
//! memory: 256
//! cmdline: log=warn nested=on nested_pool=8
//! bare: no
#![no_std]
#![no_main]

use guest::cpu::rdtsc;
use guest::vmx::prelude::*;
use guest::vmx::{Ept, many, trial, write};
use guest::{Mode, Regs, println, snippet};
use x86::vmx::controls::PrimaryControls;

guest!(main);

/// Between the two pages that the tables map; L2 maps it too.
const BITMAP: u64 = 0x300_0000;
/// Ticks that an entry and an exit may take.
const LIMIT: u64 = 100_000;

fn main() {
    enter_operation();
    let mut ept = Ept::identity();
    let mut nested = Guest::new(trial::perform);
    nested.use_ept(&ept);
    (0..4096).step_by(8).for_each(|offset| write(BITMAP + offset, 0));
    nested.write(vmcs::MSR_BITMAPS, BITMAP);
    check!(nested.add_primary(PrimaryControls::USE_MSR_BITMAPS), "bitmaps");
    enter(&mut nested, "with few tables");
    many::fill(&mut nested, &mut ept);
    enter(&mut nested, "with full tables");
    leave_operation();
}

fn enter(nested: &mut Guest, when: &str) {
    for round in 0..4 {
        trial::begin(nested, Mode::Kernel64, snippet!("nop"), Regs::default());
        write(BITMAP + 0x100, round);
        let start = rdtsc();
        let reason = nested.run();
        let ticks = rdtsc() - start;
        check_eq!(reason, ExitReason::VMCALL, "a run");
        println!("{when}: {ticks} ticks");
        check!(ticks < LIMIT, "{when}: {ticks} ticks");
    }
}
