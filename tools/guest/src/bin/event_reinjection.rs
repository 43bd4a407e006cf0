//! Event delivery into memory touched for the first time: each event arrives once and whole.
//! hypapp: quiesce
#![no_std]
#![no_main]

use guest::cpu::{rdmsr, wrmsr};
use guest::memory::FREE;
use guest::trap::{reset_gate, set_gate};
use guest::{Mode, Regs, Snippet, check_eq, guest, run, snippet};
use x86::msr::Msr;

guest!(main);

/// Variable-range MTRR pair 7: changing it may make a hypervisor build its tables anew.
const BASE: Msr = Msr(0x20e);
const MASK: Msr = Msr(0x20f);

fn main() {
    // Each snippet switches to the stack at RDI and causes one event there; the handler keeps what was pushed
    // in registers and goes back to the stack in R15.
    let plain = snippet!(
        "mov r14, [rsp]",
        "mov r13, [rsp + 8]",
        "mov r12, [rsp + 24]",
        "mov r11, rsp",
        "mov rsp, r15"
    );
    let coded = snippet!(
        "mov r10, [rsp]",
        "mov r14, [rsp + 8]",
        "mov r13, [rsp + 16]",
        "mov r12, [rsp + 32]",
        "mov r11, rsp",
        "mov rsp, r15"
    );
    let events = [
        ("#UD", 6, snippet!("mov r15, rsp", "mov rsp, rdi", "ud2"), 0, false),
        ("#UD of VMCALL", 6, snippet!("mov r15, rsp", "mov rsp, rdi", "vmcall"), 0, false),
        ("#BP", 3, snippet!("mov r15, rsp", "mov rsp, rdi", "int3"), 1, false),
        ("#DE", 0, snippet!("mov r15, rsp", "mov rsp, rdi", "div rbx"), 0, false),
        ("INT 55h", 0x55, snippet!("mov r15, rsp", "mov rsp, rdi", "int 0x55"), 2, false),
        ("#GP of RDMSR", 13, snippet!("mov r15, rsp", "mov rsp, rdi", "rdmsr"), 0, true),
        ("#PF", 14, snippet!("mov r15, rsp", "mov rsp, rdi", "mov al, [r9]"), 0, true),
    ];
    let mut page = 0;
    for round in 0..16 {
        for (what, vector, code, length, has_code) in &events {
            page += 1;
            set_gate(*vector, if *has_code { coded } else { plain });
            // Pages of many large pages, from 4 MiB to 52 MiB.
            let top = FREE + 0x20_0000 + page * 0x6_b000;
            deliver(what, *code, *length, top, *has_code);
            reset_gate(*vector);
        }
        let kind = [6, 0, 4][round % 3];
        check_eq!(wrmsr(BASE, 0x100_0000 | kind), Ok(()), "MTRR base");
        check_eq!(wrmsr(MASK, 0xf_ff00_0800), Ok(()), "MTRR mask");
        check_eq!(rdmsr(BASE), Ok(0x100_0000 | kind), "MTRR base");
    }
    check_eq!(wrmsr(MASK, 0), Ok(()), "MTRR off");
}

fn deliver(what: &str, code: Snippet, length: u64, top: u64, has_code: bool) {
    // R9 is where nothing is mapped.
    let mut regs = Regs { rdi: top, rcx: 0x1234, r9: 1 << 32, r10: 0x77, rax: 3, rdx: 4, ..Regs::default() };
    check_eq!(run(Mode::Kernel64, code, &mut regs), Ok(()), "{what} with its stack at {top:#x}");
    // The event's instruction is behind two moves of three bytes; a trap leaves RIP behind it.
    check_eq!(regs.r14 - code.address(), 6 + length, "RIP that {what} pushed at {top:#x}");
    check_eq!((regs.r13, regs.r12), (0x08, top), "CS and RSP that {what} pushed at {top:#x}");
    check_eq!((regs.rax, regs.rdx), (3, 4), "registers at {what}");
    check_eq!(top - regs.r11, if has_code { 48 } else { 40 }, "bytes that {what} pushed");
    check_eq!(regs.r10, if has_code { 0 } else { 0x77 }, "error code of {what}");
}
