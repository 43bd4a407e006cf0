//! MSRs that no processor has: RDMSR and WRMSR raise #GP(0) and change no register.
//!
//! By default Bochs reads unknown MSRs as zero; `ignore_bad_msrs=0` makes it a processor.
//! unknown-msrs: fault
#![no_std]
#![no_main]

use guest::cpu::{cpuid, rdmsr, under_hypervisor, wrmsr};
use guest::{Fault, Mode, Regs, Snippet, check, check_eq, guest, run, snippet};
use x86::msr::Msr;

guest!(main);

/// Both halves of both bitmap ranges, their edges, and what lies outside.
const UNKNOWN: [u32; 13] = [
    0x3,
    0x15f,
    0x1234,
    0x1fff,
    0x2000,
    0x1234_5678,
    0x3fff_ffff,
    0x4b56_4d00,
    0x7fff_ffff,
    0xbfff_ffff,
    0xc000_1fff,
    0xc000_2000,
    0xffff_ffff,
];

fn main() {
    for msr in UNKNOWN {
        let mut regs =
            Regs { rcx: 0xdead_0000_0000_0000 | u64::from(msr), rax: !5, rdx: !6, ..Regs::default() };
        faults_cleanly(Mode::Kernel64, snippet!("rdmsr"), &mut regs, "RDMSR", msr);
        faults_cleanly(Mode::Kernel64, snippet!("wrmsr"), &mut regs, "WRMSR", msr);
        for value in [0, 1, !0] {
            check_eq!(wrmsr(Msr(msr), value), Err(Fault::GP), "WRMSR {msr:#x} of {value:#x}");
        }
    }
    // CPL 3 has no MSRs at all.
    for msr in [0x10, 0x1b, 0x277, 0xc000_0080, 0x1234] {
        let mut regs = Regs { rcx: msr.into(), ..Regs::default() };
        faults_cleanly(Mode::User64, snippet!("rdmsr"), &mut regs, "RDMSR at CPL 3", msr);
        faults_cleanly(Mode::User64, snippet!("wrmsr"), &mut regs, "WRMSR at CPL 3", msr);
    }
    if cpuid(1, 0).ecx & 1 << 5 == 0 {
        for msr in 0x480..=0x491 {
            check_eq!(rdmsr(Msr(msr)), Err(Fault::GP), "VMX capability MSR {msr:#x} without VMX");
            check_eq!(wrmsr(Msr(msr), 0), Err(Fault::GP), "VMX capability MSR {msr:#x} without VMX");
        }
    }
    if under_hypervisor() {
        for msr in [0x560, 0x561, 0x570, 0x571, 0x580] {
            check_eq!(rdmsr(Msr(msr)), Err(Fault::GP), "Intel PT MSR {msr:#x} without Intel PT");
            check_eq!(wrmsr(Msr(msr), 0), Err(Fault::GP), "Intel PT MSR {msr:#x} without Intel PT");
        }
    }
}

fn faults_cleanly(mode: Mode, code: Snippet, regs: &mut Regs, what: &str, msr: u32) {
    let before = *regs;
    check_eq!(run(mode, code, regs), Err(Fault::GP), "{what} {msr:#x}");
    check_eq!(regs.rip, 0, "{what} {msr:#x} faults at the instruction");
    let seen = [regs.rax, regs.rbx, regs.rcx, regs.rdx];
    check!(seen == [before.rax, before.rbx, before.rcx, before.rdx], "{what} {msr:#x} keeps the registers");
    *regs = before;
}
