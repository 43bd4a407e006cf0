//! VMCALL that no hypapp claims is undefined, whoever calls and with whatever values.
//! hypapp: quiesce
#![no_std]
#![no_main]

use guest::{Fault, Mode, Regs, check_eq, guest, run, snippet};

guest!(main);

/// Numbers that hypervisors and hypapps are known to use, and their edges.
const NUMBERS: [u64; 12] = [
    0,
    1,
    5,
    0x17,
    0xf9,
    0xff,
    0x4c41_5000,
    0x4c41_50ff,
    0x4648_4d58,
    0x7a56_7254,
    0xffff_ffff,
    0xffff_ffff_ffff_ffff,
];

fn main() {
    let modes = [
        (Mode::Kernel64, snippet!("vmcall")),
        (Mode::User64, snippet!("vmcall")),
        (Mode::Compatibility32, snippet!(code32: "vmcall")),
        (Mode::CompatibilityUser32, snippet!(code32: "vmcall")),
        (Mode::Protected32, snippet!(code32: "vmcall")),
        (Mode::ProtectedUser32, snippet!(code32: "vmcall")),
        (Mode::Protected16, snippet!(code16: "vmcall")),
        (Mode::Virtual8086, snippet!(code16: "vmcall")),
        (Mode::Real, snippet!(code16: "vmcall")),
    ];
    for number in NUMBERS {
        for (mode, code) in modes {
            let before = Regs {
                rax: number,
                rbx: !number,
                rcx: 0xffff_ffff_8000_0000,
                rdx: 0x8000_0000_0000_0000,
                rsi: guest::memory::FREE,
                rdi: !0,
                ..Regs::default()
            };
            let mut regs = before;
            check_eq!(run(mode, code, &mut regs), Err(Fault::UD), "VMCALL {number:#x} in {mode:?}");
            check_eq!(regs.rip, 0, "VMCALL {number:#x} in {mode:?} faults at the instruction");
            if matches!(mode, Mode::Kernel64 | Mode::User64) {
                let seen = (regs.rax, regs.rbx, regs.rcx, regs.rdx, regs.rsi, regs.rdi);
                let expected = (before.rax, before.rbx, before.rcx, before.rdx, before.rsi, before.rdi);
                check_eq!(seen, expected, "registers after VMCALL {number:#x} in {mode:?}");
            }
        }
    }
}
