//! XSETBV: the processor takes exactly the state combinations it has, and faults on the rest.
//! model: corei7_skylake_x
#![no_std]
#![no_main]

use guest::cpu::{cpuid, read_cr4, write_cr4, xgetbv, xsetbv};
use guest::{Fault, Mode, Regs, check, check_eq, guest, run, snippet};

guest!(main);

const OSXSAVE: u64 = 1 << 18;
const SSE: u64 = 1 << 1;
const AVX: u64 = 1 << 2;
const MPX: u64 = 3 << 3;
const AVX512: u64 = 7 << 5;
const AMX: u64 = 3 << 17;

fn main() {
    if cpuid(1, 0).ecx & 1 << 26 == 0 {
        check!(true, "no XSAVE");
        return;
    }
    let old = read_cr4();
    check_eq!(write_cr4(old & !OSXSAVE), Ok(()), "CR4.OSXSAVE cleared");
    check_eq!(xsetbv(0, 1), Err(Fault::UD), "XSETBV without CR4.OSXSAVE");
    check_eq!(xgetbv(0), Err(Fault::UD), "XGETBV without CR4.OSXSAVE");
    check_eq!(write_cr4(old | OSXSAVE), Ok(()), "CR4.OSXSAVE set");

    let features = cpuid(0xd, 0);
    let supported = u64::from(features.edx) << 32 | u64::from(features.eax);
    let low = (0..1024_u64).chain((0..1024).step_by(7).map(|low| low | 3 << 17));
    for value in low.chain((0..64).map(|bit| 7 | 1 << bit)).chain([!0, 1 << 63 | 3, supported]) {
        attempt(value, is_valid(value, supported));
    }
    check_eq!(xsetbv(0, 3), Ok(()), "XCR0 = 3");
    for index in [1, 2, 0x8000_0000, !0] {
        check_eq!(xsetbv(index, 3), Err(Fault::GP), "XCR{index:#x}");
    }
    let mut regs = Regs { rax: 3, ..Regs::default() };
    check_eq!(run(Mode::User64, snippet!("xsetbv"), &mut regs), Err(Fault::GP), "XSETBV at CPL 3");
    check_eq!(run(Mode::User64, snippet!("xgetbv"), &mut regs), Ok(()), "XGETBV at CPL 3");
    check_eq!(regs.rax, 3, "XGETBV at CPL 3");
    let code = snippet!(code16: "xsetbv");
    check_eq!(run(Mode::Virtual8086, code, &mut regs), Err(Fault::GP), "XSETBV in virtual-8086 mode");
    for mode in [Mode::Real, Mode::Protected16] {
        let mut regs = Regs { rax: 1, ..Regs::default() };
        check_eq!(run(mode, code, &mut regs), Ok(()), "XSETBV in {mode:?}");
        check_eq!(xgetbv(0), Ok(1), "XCR0 after {mode:?}");
        check_eq!(xsetbv(0, 3), Ok(()), "XCR0 = 3");
    }
    // The upper halves of the three registers do not count in 64-bit mode.
    regs = Regs { rax: 0xdead_beef_0000_0001, rcx: 0x1_0000_0000, rdx: 0x5_0000_0000, ..Regs::default() };
    check_eq!(run(Mode::Kernel64, snippet!("xsetbv"), &mut regs), Ok(()), "XSETBV with upper halves set");
    check_eq!(xgetbv(0), Ok(1), "XCR0 after upper halves were set");
    check_eq!(write_cr4(old), Ok(()), "CR4 as before");
}

/// SDM, "Enabling the XSAVE Feature Set and XSAVE-Enabled Features".
fn is_valid(value: u64, supported: u64) -> bool {
    let all_or_none = |set: u64| value & set == 0 || value & set == set;
    value & 1 != 0
        && value & !supported == 0
        && (value & AVX == 0 || value & SSE != 0)
        && all_or_none(MPX)
        && all_or_none(AVX512)
        && (value & AVX512 == 0 || value & AVX != 0)
        && all_or_none(AMX)
}

fn attempt(value: u64, is_valid: bool) {
    let before = xgetbv(0);
    let expected = if is_valid { Ok(()) } else { Err(Fault::GP) };
    check_eq!(xsetbv(0, value), expected, "XCR0 = {value:#x}");
    check_eq!(xgetbv(0), if is_valid { Ok(value) } else { before }, "XCR0 after writing {value:#x}");
}
