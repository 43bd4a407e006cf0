//! Private memory of a hypapp's is mapped while it is open and at no other time, on every CPU, and the guest has its own
//! speculation control again behind it.
//! cpus: 2
//! model: sapphire_rapids
//! hypapp: verify
//! bare: no
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};
use guest::cpu::{cpuid, rdmsr, rdmsr_existing, wrmsr_existing};
use guest::{Mode, Regs, check, check_eq, guest, println, run, smp, snippet};
use x86::msr::Msr;
use x86::speculation::{SpecCtrl, SpeculationFeatures};

guest!(main);

const FIND_PRIVATE: u64 = 0xdead_bef3;
const ONLY_WHILE_OPEN: u64 = 2;
static ON_OTHER: AtomicU64 = AtomicU64::new(0);

fn main() {
    let features = SpeculationFeatures::from_bits_retain(cpuid(7, 0).edx);
    let has_control = features.contains(SpeculationFeatures::IBRS_AND_IBPB);
    println!("speculation {:#x} control={has_control}", features.bits());
    check!(smp::start_others(1), "two CPUs");
    for choice in [SpecCtrl::empty(), SpecCtrl::IBRS] {
        if has_control {
            wrmsr_existing(Msr::IA32_SPEC_CTRL, choice.bits());
        }
        check_eq!(find(), ONLY_WHILE_OPEN, "private memory on this CPU");
        if has_control {
            check_eq!(rdmsr_existing(Msr::IA32_SPEC_CTRL), choice.bits(), "the guest's speculation control");
        }
    }
    check!(smp::run_on(1, || ON_OTHER.store(find(), Ordering::SeqCst)), "the other CPU is done");
    check_eq!(ON_OTHER.load(Ordering::SeqCst), ONLY_WHILE_OPEN, "private memory on the other CPU");
    check_eq!(rdmsr(Msr::IA32_SPEC_CTRL).is_ok(), has_control, "the register is there as CPUID says");
}

fn find() -> u64 {
    let mut regs = Regs { rax: FIND_PRIVATE, ..Regs::default() };
    check_eq!(run(Mode::Kernel64, snippet!("vmcall"), &mut regs), Ok(()), "the hypercall");
    regs.rdx
}
