//! Addresses of 57 bits in registers outlive five-level paging, and the processor goes on; who cannot enter a guest with
//! such registers does not offer five levels.
//! model: sapphire_rapids
//! cmdline: nested=on
#![no_std]
#![no_main]

use guest::cpu::{cpuid, rdmsr};
use guest::{Fault, Mode, Regs, check, check_eq, guest, println, run, snippet};
use x86::msr::Msr;

guest!(main);

const GENERAL_PROTECTION: Result<(), Fault> = Err(Fault { vector: 13, error_code: 0 });

fn main() {
    let has_la57 = cpuid(7, 0).ecx >> 16 & 1 == 1;
    let width = cpuid(0x8000_0008, 0).eax >> 8 & 0xff;
    println!("five levels {has_la57}, {width} bits");
    check_eq!(width, if has_la57 { 57 } else { 48 }, "width of linear addresses");
    let code = snippet!(code32:
        "mov eax, cr4", "or eax, 0x1000", "mov cr4, eax",
        "mov ecx, 0x175", "xor eax, eax", "mov edx, 0x00800000", "wrmsr",
        "mov eax, cr4", "and eax, 0xffffefff", "mov cr4, eax",
        "xor eax, eax", "cpuid",
        "mov ecx, 0x175", "xor eax, eax", "xor edx, edx", "wrmsr");
    let result = run(Mode::Protected32, code, &mut Regs::default());
    check_eq!(result, if has_la57 { Ok(()) } else { GENERAL_PROTECTION }, "57 bits, and back to 48");
    check_eq!(rdmsr(Msr::IA32_SYSENTER_ESP), Ok(0), "SYSENTER_ESP");
    check!(cpuid(0, 0).eax >= 7, "the processor goes on");
}
