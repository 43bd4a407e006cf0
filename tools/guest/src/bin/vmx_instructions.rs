//! VMX and SMX instructions: without VMX and SMX they are undefined, at each privilege level in each mode.
//!
//! Bare, the processor has VMX but CR4.VMXE stays clear, which comes to the same.
//! hypapp: quiesce
//! cmdline: nested=off
#![no_std]
#![no_main]

use guest::cpu::{read_cr4, under_hypervisor, write_cr4};
use guest::vmx::form;
use guest::{Fault, Mode, Regs, Snippet, check_eq, guest, run, snippet};

guest!(main);

macro_rules! others {
    ($($text:literal $code:literal),+ $(,)?) => {
        [$(($text, snippet!($code), snippet!(code32: $code), snippet!(code16: $code))),+]
    };
}

fn main() {
    let vmx = form::forms().into_iter().chain([form::vmxon()]);
    let others = others![
        "VMFUNC" "vmfunc",
        "GETSEC" ".byte 0x0f, 0x37",
        "VMMCALL" ".byte 0x0f, 0x01, 0xd9",
        "SEAMCALL" ".byte 0x66, 0x0f, 0x01, 0xcf",
    ];
    let all = vmx.map(|form| (form.name, form.code64, form.code32, form.code16)).chain(others);
    for (name, code64, code32, code16) in all {
        // A page of memory, an unmapped address and a non-canonical one: undefined comes before all that.
        for operand in [guest::memory::FREE, form::UNMAPPED, 0x8000_0000_0000_0000] {
            undefined(name, Mode::Kernel64, code64, operand);
            undefined(name, Mode::User64, code64, operand);
        }
        for mode in
            [Mode::Compatibility32, Mode::CompatibilityUser32, Mode::Protected32, Mode::ProtectedUser32]
        {
            undefined(name, mode, code32, 0x5000);
        }
        for mode in [Mode::Protected16, Mode::Virtual8086, Mode::Real] {
            undefined(name, mode, code16, 0x5000);
        }
    }
    let old = read_cr4();
    if under_hypervisor() {
        for bit in [13, 14] {
            check_eq!(
                write_cr4(old | 1 << bit),
                Err(Fault::GP),
                "CR4 bit {bit} where CPUID has no such feature"
            );
            check_eq!(read_cr4(), old, "CR4 after a refused write");
        }
    }
}

fn undefined(name: &str, mode: Mode, code: Snippet, operand: u64) {
    let before = Regs { rax: 0x1234, rbx: 0x6800, rcx: 7, rdx: 8, rsi: operand, rdi: 9, ..Regs::default() };
    let mut regs = before;
    check_eq!(run(mode, code, &mut regs), Err(Fault::UD), "{name} in {mode:?} on {operand:#x}");
    check_eq!(regs.rip, 0, "{name} in {mode:?} faults at the instruction");
    check_eq!((regs.rax, regs.rbx), (before.rax, before.rbx), "{name} in {mode:?} changes nothing");
    check_eq!(regs.rflags & 0x8d5, 0, "{name} in {mode:?} changes no flag");
}
