//! Ordinary MSRs: values come back and work; reserved bits and non-canonical addresses raise #GP(0).
//!
//! Not checked: a set bit above 31 in IA32_TSC_AUX is reserved, yet Bochs 3.0 drops it without a fault.
#![no_std]
#![no_main]

use guest::cpu::{cpuid, rdmsr, wrmsr};
use guest::run::USER_BASE;
use guest::{Fault, Mode, Regs, check, check_eq, guest, run, snippet};
use x86::msr::Msr;

guest!(main);

const NON_CANONICAL: u64 = 0x8000_1234_5678_0000;
const CANONICAL: u64 = 0xffff_8012_3456_7000;

fn main() {
    extended_features();
    page_attributes();
    for msr in [
        Msr::IA32_FS_BASE,
        Msr::IA32_GS_BASE,
        Msr::IA32_KERNEL_GS_BASE,
        Msr::IA32_SYSENTER_ESP,
        Msr::IA32_SYSENTER_EIP,
        Msr::IA32_LSTAR,
    ] {
        round_trip(msr, CANONICAL);
        round_trip(msr, 0x7fff_ffff_f000);
        refused(msr, NON_CANONICAL);
    }
    round_trip(Msr::IA32_SYSENTER_CS, 0x1234);
    round_trip(Msr::IA32_STAR, 0x0033_0008_1234_5678);
    round_trip(Msr::IA32_FMASK, 0x4_7700);
    auxiliary();
    segment_bases();
    system_call();
    let seen = rdmsr(Msr::IA32_APIC_BASE);
    check!(seen.is_ok_and(|v| v & 0x900 == 0x900), "APIC base {seen:x?}: enabled, bootstrap processor");
    let before = rdmsr(Msr::IA32_TIME_STAMP_COUNTER);
    let after = rdmsr(Msr::IA32_TIME_STAMP_COUNTER);
    check!(
        before.unwrap_or(0) < after.unwrap_or(0),
        "time-stamp counter counts, {before:x?} then {after:x?}"
    );
}

fn extended_features() {
    let Ok(old) = rdmsr(Msr::IA32_EFER) else {
        check!(false, "EFER can be read");
        return;
    };
    check_eq!(old & 0x500, 0x500, "EFER.LME and LMA in 64-bit mode");
    for bit in [1_u64, 1 << 11] {
        check_eq!(wrmsr(Msr::IA32_EFER, old | bit), Ok(()), "EFER bit {bit:#x} set");
        check_eq!(rdmsr(Msr::IA32_EFER), Ok(old | bit), "EFER bit {bit:#x} set");
        check_eq!(wrmsr(Msr::IA32_EFER, old & !bit), Ok(()), "EFER bit {bit:#x} cleared");
        check_eq!(rdmsr(Msr::IA32_EFER), Ok(old & !bit), "EFER bit {bit:#x} cleared");
    }
    refused(Msr::IA32_EFER, old & !0x100);
    for bit in [1, 2, 9, 20, 32, 63] {
        refused(Msr::IA32_EFER, old | 1 << bit);
    }
    check_eq!(wrmsr(Msr::IA32_EFER, old & !0x400), Ok(()), "EFER.LMA is not written");
    check_eq!(rdmsr(Msr::IA32_EFER), Ok(old), "EFER.LMA is not written");
}

fn page_attributes() {
    let old = rdmsr(Msr::IA32_PAT).unwrap_or(0);
    round_trip(Msr::IA32_PAT, 0x0001_0405_0607_0006);
    for bad in [2, 3, 8, 0x80, 0xff] {
        refused(Msr::IA32_PAT, old & !0xff | bad);
        refused(Msr::IA32_PAT, old & !(0xff << 56) | bad << 56);
    }
}

fn auxiliary() {
    if cpuid(0x8000_0001, 0).edx & 1 << 27 == 0 {
        return;
    }
    round_trip(Msr::IA32_TSC_AUX, 0x89ab_cdef);
    check_eq!(wrmsr(Msr::IA32_TSC_AUX, 0x1234_5678), Ok(()), "TSC_AUX");
    let mut regs = Regs::default();
    check_eq!(run(Mode::User64, snippet!("rdtscp"), &mut regs), Ok(()), "RDTSCP");
    check_eq!(regs.rcx, 0x1234_5678, "RDTSCP gives TSC_AUX");
}

fn segment_bases() {
    let cell = 0x1122_3344_5566_7788_u64;
    let address = core::ptr::from_ref(&cell) as u64;
    check_eq!(wrmsr(Msr::IA32_FS_BASE, address), Ok(()), "FS base");
    let mut regs = Regs::default();
    check_eq!(run(Mode::Kernel64, snippet!("mov rax, fs:[0]"), &mut regs), Ok(()), "load by FS");
    check_eq!(regs.rax, cell, "load by FS");
    check_eq!(wrmsr(Msr::IA32_GS_BASE, 0), Ok(()), "GS base");
    check_eq!(wrmsr(Msr::IA32_KERNEL_GS_BASE, address), Ok(()), "GS base behind SWAPGS");
    let code = snippet!("swapgs", "mov rax, gs:[0]", "swapgs");
    check_eq!(run(Mode::Kernel64, code, &mut regs), Ok(()), "load by GS");
    check_eq!(regs.rax, cell, "load by GS");
}

fn system_call() {
    let old = rdmsr(Msr::IA32_EFER).unwrap_or(0);
    let target = snippet!("mov r15, 0x1234");
    check_eq!(wrmsr(Msr::IA32_STAR, 0x0033_0008 << 32), Ok(()), "STAR");
    check_eq!(wrmsr(Msr::IA32_LSTAR, target.address()), Ok(()), "LSTAR");
    check_eq!(wrmsr(Msr::IA32_FMASK, 0x200), Ok(()), "FMASK");
    let mut regs = Regs::default();
    check_eq!(run(Mode::User64, snippet!("syscall"), &mut regs), Err(Fault::UD), "SYSCALL without EFER.SCE");
    check_eq!(wrmsr(Msr::IA32_EFER, old | 1), Ok(()), "EFER.SCE");
    let code = snippet!("syscall");
    check_eq!(run(Mode::User64, code, &mut regs), Ok(()), "SYSCALL");
    check_eq!((regs.r15, regs.cs), (0x1234, 0x08), "SYSCALL goes to LSTAR at CPL 0");
    check_eq!(regs.rcx, USER_BASE + code.address() + 2, "SYSCALL keeps RIP in RCX");
    check_eq!(wrmsr(Msr::IA32_EFER, old), Ok(()), "EFER as before");
}

fn round_trip(msr: Msr, value: u64) {
    let old = rdmsr(msr);
    check_eq!(wrmsr(msr, value), Ok(()), "WRMSR {msr:?} of {value:#x}");
    check_eq!(rdmsr(msr), Ok(value), "RDMSR {msr:?}");
    check_eq!(wrmsr(msr, old.unwrap_or(0)), Ok(()), "WRMSR {msr:?} of its old value");
    check_eq!(rdmsr(msr), old, "RDMSR {msr:?} of its old value");
}

fn refused(msr: Msr, value: u64) {
    let old = rdmsr(msr);
    check_eq!(wrmsr(msr, value), Err(Fault::GP), "WRMSR {msr:?} of {value:#x}");
    check_eq!(rdmsr(msr), old, "{msr:?} after a refused write");
}
