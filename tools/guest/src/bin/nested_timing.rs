//! Ticks of a guest's guest: an instruction that its hypervisor answers, and some that leave it for nobody.
//! model: corei7_skylake_x
//! cmdline: log=warn
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};

use guest::cpu::{cpuid, rdmsr_existing, rdtsc};
use guest::vmx::{Ept, ExitReason, Guest, allocate, enter_operation, leave_operation, vmcs};
use guest::{check, check_eq, guest, println};
use x86::msr::Msr;
use x86::vmx::controls::PrimaryControls;

guest!(main);

const ROUNDS: u64 = 50;

static LEAST: AtomicU64 = AtomicU64::new(u64::MAX);

fn main() {
    enter_operation();
    let ept = Ept::identity();
    let mut nested = Guest::new(many_cpuids);
    answer(&mut nested, "l2_cpuid");
    nested.use_ept(&ept);
    nested.call(many_cpuids);
    answer(&mut nested, "l2_cpuid_ept");
    assert!(nested.add_primary(PrimaryControls::USE_MSR_BITMAPS), "the processor has no MSR bitmaps");
    nested.write(vmcs::MSR_BITMAPS, allocate());
    nested.call(many_msrs);
    answer(&mut nested, "l2_msr_unwanted");
    check!(least() < 400, "an MSR that nobody wants takes {} ticks", least());
    leave_operation();
}

/// Answers each CPUID with nothing, and prints the least ticks that one took.
fn answer(nested: &mut Guest, name: &str) {
    LEAST.store(u64::MAX, Ordering::SeqCst);
    while nested.run() == ExitReason::CPUID {
        nested.advance();
    }
    check!(nested.has_ended(), "{name}: the end");
    check_eq!(nested.read(vmcs::EXIT_INSTRUCTION_LENGTH), 3, "{name}: length of VMCALL");
    println!("bench {name} ticks={}", least());
    check!(least() < 6000, "{name} takes {} ticks", least());
}

fn least() -> u64 {
    LEAST.load(Ordering::SeqCst)
}

fn time(act: impl Fn()) {
    for _ in 0..ROUNDS {
        let start = rdtsc();
        act();
        LEAST.fetch_min(rdtsc() - start, Ordering::SeqCst);
    }
}

extern "C" fn many_cpuids() {
    time(|| {
        cpuid(0, 0);
    });
}

extern "C" fn many_msrs() {
    time(|| {
        rdmsr_existing(Msr::IA32_KERNEL_GS_BASE);
    });
}
