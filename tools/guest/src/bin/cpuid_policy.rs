//! CPUID: VMX, SMX and Intel PT hidden, the rest the processor's own, the same in every mode.
//! cmdline: nested=off
#![no_std]
#![no_main]

use guest::cpu::{cpuid, read_cr4, under_hypervisor, write_cr4, xsetbv};
use guest::{Mode, Regs, check, check_eq, guest, println, run, snippet};
use x86::cr::Cr4;

guest!(main);

const MODES: [Mode; 8] = [
    Mode::User64,
    Mode::Compatibility32,
    Mode::CompatibilityUser32,
    Mode::Protected32,
    Mode::ProtectedUser32,
    Mode::Protected16,
    Mode::Virtual8086,
    Mode::Real,
];

fn main() {
    hidden_features();
    hypervisor_leaves();
    bits_that_follow_cr4();
    same_in_every_mode();
    sizes_follow_xcr0();

    let mut regs = Regs { rax: !0 << 32, rbx: !0, rcx: !0 << 32, rdx: !0, ..Regs::default() };
    check_eq!(run(Mode::Kernel64, snippet!("cpuid"), &mut regs), Ok(()), "CPUID in 64-bit mode");
    let upper = (regs.rax | regs.rbx | regs.rcx | regs.rdx) >> 32;
    check_eq!(upper, 0, "upper halves of the result registers");
    let address_bits = cpuid(0x8000_0008, 0).eax & 0xff;
    check!((36..=52).contains(&address_bits), "physical-address width {address_bits}");
}

fn hidden_features() {
    let one = cpuid(1, 0);
    let seven = cpuid(7, 0);
    println!("leaf 0 {:x?} leaf 1 {one:x?} leaf 7 {seven:x?}", cpuid(0, 0));
    let hypervisor = under_hypervisor();
    check!(!hypervisor || one.ecx & 1 << 5 == 0, "VMX is hidden, ECX {:#x}", one.ecx);
    check!(!hypervisor || one.ecx & 1 << 6 == 0, "SMX is hidden, ECX {:#x}", one.ecx);
    check!(!hypervisor || seven.ebx & 1 << 25 == 0, "Intel PT is hidden, EBX {:#x}", seven.ebx);
    if hypervisor && cpuid(0, 0).eax >= 0x14 {
        let trace = cpuid(0x14, 0);
        check_eq!([trace.eax, trace.ebx, trace.ecx, trace.edx], [0; 4], "leaf 14H without Intel PT");
    }
    check!(one.edx & 1 << 25 != 0 && one.edx & 1 << 9 != 0, "SSE and APIC are there, EDX {:#x}", one.edx);
    check!(cpuid(0x8000_0001, 0).edx & 1 << 29 != 0, "long mode is there");
    check_eq!(one.ecx & 1 << 31, 0, "hypervisor-present bit as the hardware has it");
}

fn hypervisor_leaves() {
    let highest = cpuid(0, 0).eax;
    let signature = cpuid(0x4000_0000, 0);
    println!("leaf 40000000H {signature:x?}");
    if under_hypervisor() {
        check!((0x4000_0000..0x4000_0100).contains(&signature.eax), "highest leaf {:#x}", signature.eax);
        for word in [signature.ebx, signature.ecx, signature.edx] {
            let is_text = word.to_le_bytes().iter().all(|b| *b == 0 || b.is_ascii_graphic());
            check!(is_text && signature.ebx != 0, "signature {word:#x} is text");
        }
    }
    // SDM, "CPUID-CPU Identification": a basic leaf above the highest gives the highest leaf's data.
    let beyond = cpuid(highest + 1, 0);
    check!(beyond == cpuid(highest, 0) || beyond.eax == 0, "leaf above the highest: {beyond:x?}");
}

fn bits_that_follow_cr4() {
    let osxsave = || cpuid(1, 0).ecx >> 27 & 1;
    let ospke = || cpuid(7, 0).ecx >> 4 & 1;
    let old = read_cr4();
    for is_set in [1, 0, 1] {
        let value = if is_set == 1 { old | Cr4::OSXSAVE.bits() } else { old & !Cr4::OSXSAVE.bits() };
        check_eq!(write_cr4(value), Ok(()), "CR4.OSXSAVE = {is_set}");
        check_eq!(osxsave(), is_set, "CPUID.1:ECX.OSXSAVE");
    }
    if cpuid(7, 0).ecx & 1 << 3 != 0 {
        for is_set in [1, 0] {
            let value = if is_set == 1 { old | Cr4::PKE.bits() } else { old & !Cr4::PKE.bits() };
            check_eq!(write_cr4(value), Ok(()), "CR4.PKE = {is_set}");
            check_eq!(ospke(), is_set, "CPUID.7:ECX.OSPKE");
        }
    }
    check_eq!(write_cr4(old), Ok(()), "CR4 as before");
}

fn same_in_every_mode() {
    for leaf in [0, 1, 7, 0xd, 0x8000_0000_u32, 0x8000_0008, guest::cpu::XMHF_LEAF] {
        let here = cpuid(leaf, 0);
        let expected = [here.eax, here.ebx, here.ecx, here.edx].map(u64::from);
        for mode in MODES {
            let mut regs = Regs { rax: leaf.into(), ..Regs::default() };
            let code = match mode {
                Mode::User64 => snippet!("cpuid"),
                Mode::Protected16 | Mode::Virtual8086 | Mode::Real => snippet!(code16: "cpuid"),
                _ => snippet!(code32: "cpuid"),
            };
            check_eq!(run(mode, code, &mut regs), Ok(()), "CPUID in {mode:?}");
            let mut seen = [regs.rax, regs.rbx, regs.rcx, regs.rdx];
            if leaf == 0x8000_0001 || leaf == 1 {
                // Legacy modes ran with CR4 as it was: nothing differs but what CR4 says.
                seen[2] = seen[2] & !(1 << 27) | expected[2] & 1 << 27;
            }
            check_eq!(seen, expected, "leaf {leaf:#x} in {mode:?}");
        }
    }
}

fn sizes_follow_xcr0() {
    if cpuid(1, 0).ecx & 1 << 26 == 0 {
        return;
    }
    let old = read_cr4();
    check_eq!(write_cr4(old | Cr4::OSXSAVE.bits()), Ok(()), "CR4.OSXSAVE");
    check_eq!(xsetbv(0, 1), Ok(()), "XCR0 = x87");
    let x87 = cpuid(0xd, 0);
    check_eq!(x87.ebx, 576, "XSAVE area of x87 alone");
    if x87.eax & 4 != 0 {
        check_eq!(xsetbv(0, 7), Ok(()), "XCR0 = x87, SSE, AVX");
        check_eq!(cpuid(0xd, 0).ebx, 832, "XSAVE area with AVX");
    }
    check_eq!(xsetbv(0, 1), Ok(()), "XCR0 as before");
    check_eq!(write_cr4(old), Ok(()), "CR4 as before");
}
