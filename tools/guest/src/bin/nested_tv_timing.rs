//! Ticks of a hypercall to TrustVisor that a guest's guest makes, of which its hypervisor knows nothing.
//! model: corei7_skylake_x
//! cmdline: log=warn
//! hypapp: trustvisor
//! bare: no
#![no_std]
#![no_main]

use guest::bench::ROUNDS;
use guest::memory::{FREE, read64};
use guest::vmx::prelude::*;
use guest::vmx::{Ept, trial};
use guest::{Mode, Regs, measured, println};
use trustvisor::command::{Command, NESTED_OFFSET};

guest!(main);

/// Most ticks that it may take.
const BAR: u64 = 1_000;

fn main() {
    enter_operation();
    let ept = Ept::identity();
    let mut nested = Guest::new(trial::perform);
    nested.use_ept(&ept);
    let command = u64::from(NESTED_OFFSET + Command::TEST.0);
    let inputs = Regs { r8: command, r14: FREE, r15: ROUNDS, ..Regs::default() };
    trial::begin(&mut nested, Mode::Kernel64, measured!("vmcall"), inputs);
    check_eq!(nested.run(), ExitReason::VMCALL, "the only exit");
    check!(nested.has_ended(), "the only exit is the end");
    check_eq!(trial::result().0, Ok(()), "the hypercalls");
    let mut samples = [0_u64; 101];
    for (address, sample) in (FREE..).step_by(8).zip(&mut samples) {
        *sample = read64(address).unwrap_or(u64::MAX);
    }
    samples.sort_unstable();
    let median = samples[samples.len() / 2];
    println!("bench l2_vmcall_trustvisor ticks={} median={median}", samples[0]);
    check!(median <= BAR, "a hypercall takes {median} ticks");
    leave_operation();
}
