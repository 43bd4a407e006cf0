//! Segments with a base, as a caller may have them, move nothing of a PAL's memory, and are the caller's again behind it.
//! hypapp: trustvisor
//! bare: no
#![no_std]
#![no_main]
#![expect(
    clippy::cast_possible_truncation,
    reason = "addresses below 4 GiB, selectors, and patterns of bytes"
)]

use guest::cpu::{rdmsr, wrmsr};
use guest::pal::IF;
use guest::pal::prelude::*;
use guest::{Regs, run, smp};
use x86::msr::Msr;

guest!(main);

const INTEGERS: [(ParameterType, u64); 2] = [(ParameterType::Integer, 0); 2];
/// Free places in the table.
const SHIFTED: u16 = 0x50;
const SHORT: u16 = 0x58;
/// A data segment of ring 3 from 0x1000 on, and one of 16 bytes.
const SHIFTED_DESCRIPTOR: u64 = 0x00cf_f300_1000_ffff;
const SHORT_DESCRIPTOR: u64 = 0x0040_f300_0000_000f;

fn main() {
    smp::descriptor(SHIFTED).set(SHIFTED_DESCRIPTOR);
    smp::descriptor(SHORT).set(SHORT_DESCRIPTOR);
    for selector in [0x3b, SHIFTED | 3, SHORT | 3] {
        data_segments(selector);
    }
    bases_of_64_bits();
}

/// Each write by one segment is read again by another.
fn data_segments(selector: u16) {
    let mode = Mode::CompatibilityUser32;
    let pal = Pal::place(mode, 0, through_segments());
    check_eq!(pal.register(&INTEGERS), 0, "registering");
    let mut regs = Regs {
        rax: selector.into(),
        rcx: pal.entry() + PAGE,
        rdi: pal.entry(),
        rflags: IF,
        ..Regs::default()
    };
    let call = snippet!(code32:
        "push 0",
        "push ecx",
        "mov ds, ax",
        "mov es, ax",
        "mov fs, ax",
        "mov gs, ax",
        "call edi",
        "lea esp, [esp + 8]",
        "xor ebx, ebx",
        "mov bx, ds",
        "mov ecx, es",
        "mov edx, fs",
        "mov esi, gs"
    );
    check_eq!(run(mode, call, &mut regs), Ok(()), "selector {selector:#x}: the call");
    check_eq!((regs.eax(), regs.rflags & CF), (0x4321, 0), "selector {selector:#x}: what the PAL found");
    let kept = [regs.rbx, regs.rcx, regs.rdx, regs.rsi].map(|selector| selector as u16);
    check_eq!(kept, [selector; 4], "selector {selector:#x}: the caller's segments");
    check_eq!(pal.unregister(), 0, "unregistering");
}

/// Stores 1 to 4 by DS, ES, FS and GS, and puts what SS reads there into the digits of EAX.
fn through_segments() -> Snippet {
    snippet!(code32:
        "mov edx, [esp + 4]",
        "mov dword ptr ds:[edx], 1",
        "mov edi, edx",
        "add edi, 4",
        "mov eax, 2",
        "stosd",
        "mov dword ptr fs:[edx + 8], 3",
        "mov dword ptr gs:[edx + 12], 4",
        "mov eax, ss:[edx + 12]",
        "shl eax, 4",
        "or eax, ss:[edx + 8]",
        "shl eax, 4",
        "or eax, ss:[edx + 4]",
        "shl eax, 4",
        "or eax, ss:[edx]",
        "ret"
    )
}

/// FS and GS of a 64-bit process.
fn bases_of_64_bits() {
    let code = snippet!(
        "mov qword ptr fs:[rdi], 1",
        "mov qword ptr gs:[rdi + 8], 2",
        "mov rax, [rdi + 8]",
        "shl eax, 4",
        "or rax, [rdi]",
        "ret"
    );
    let pal = Pal::place(Mode::User64, 1, code);
    let bases = [(Msr::IA32_FS_BASE, PAGE), (Msr::IA32_GS_BASE, 0x10)];
    let before = bases.map(|(msr, _)| rdmsr(msr));
    for (msr, base) in bases {
        check_eq!(wrmsr(msr, base), Ok(()), "a base");
    }
    check_eq!(pal.register(&INTEGERS), 0, "registering");
    let called = pal.call([pal.entry() + PAGE; 10]).map(|regs| (regs.rax, regs.rflags & CF));
    check_eq!(called, Ok((0x21, 0)), "what the PAL found");
    check_eq!(bases.map(|(msr, _)| rdmsr(msr)), bases.map(|(_, base)| Ok(base)), "the caller's bases");
    check_eq!(pal.unregister(), 0, "unregistering");
    for ((msr, _), value) in bases.into_iter().zip(before) {
        let _ = wrmsr(msr, value.unwrap_or(0));
    }
}
