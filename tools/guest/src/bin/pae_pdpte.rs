//! PAE pointer entries: held in registers, loaded anew by MOV to CR3 and by the CR0 and CR4 bits that say so.
//!
//! Bochs 3.0 does not load them where CR0.CD changes, as the SDM's "PDPTE Registers" has it; both are accepted.
#![no_std]
#![no_main]

use guest::memory::{FREE, write64};
use guest::{Fault, Mode, Regs, Snippet, check, check_eq, guest, run, snippet};

guest!(main);

const PDPT: u64 = FREE;
const IDENTITY: u64 = FREE + 0x1000;
const FIRST: u64 = FREE + 0x2000;
const SECOND: u64 = FREE + 0x3000;
const BAD_PDPT: u64 = FREE + 0x4000;
const FIRST_DATA: u64 = 0x40_0000;
const SECOND_DATA: u64 = 0x60_0000;

/// PAE paging on with the table at EDI, one word read at 1 GiB; then that window's pointer entry changed in
/// memory and its translation dropped.
macro_rules! start {
    () => {
        "mov cr3, edi
         mov eax, cr4
         or eax, 0x20
         mov cr4, eax
         mov eax, cr0
         or eax, 0x80000000
         mov cr0, eax
         mov ebx, [0x40000000]
         mov [edi + 8], esi
         invlpg [0x40000000]
         mov ecx, [0x40000000]"
    };
}

/// The word at 1 GiB to EDX; paging off.
macro_rules! finish {
    () => {
        "mov edx, [0x40000000]
         mov eax, cr0
         and eax, 0x7fffffff
         mov cr0, eax"
    };
}

fn main() {
    check_eq!(write64(FIRST_DATA, 0xaaaa), Ok(()), "write");
    check_eq!(write64(SECOND_DATA, 0xbbbb), Ok(()), "write");
    for page in 0..512 {
        check_eq!(write64(IDENTITY + 8 * page, page << 21 | 0x83), Ok(()), "write");
        check_eq!(write64(FIRST + 8 * page, FIRST_DATA | 0x83), Ok(()), "write");
        check_eq!(write64(SECOND + 8 * page, SECOND_DATA | 0x83), Ok(()), "write");
    }
    let reload_cr3 = snippet!(code32: start!(), "mov eax, cr3", "mov cr3, eax", finish!());
    reloads("MOV to CR3", reload_cr3);
    let toggle_cd = snippet!(code32: start!(), "mov eax, cr0", "and eax, 0x9fffffff", "mov cr0, eax",
        "or eax, 0x40000000", "mov cr0, eax", finish!());
    let regs = attempt("MOV to CR0 that changes CD", toggle_cd);
    check!(matches!(regs.rdx, 0xaaaa | 0xbbbb), "window after MOV to CR0 that changes CD: {:#x}", regs.rdx);
    let toggle_pge = snippet!(code32: start!(), "mov eax, cr4", "xor eax, 0x80", "mov cr4, eax", finish!());
    reloads("MOV to CR4 that changes PGE", toggle_pge);
    let toggle_pse = snippet!(code32: start!(), "mov eax, cr4", "xor eax, 0x10", "mov cr4, eax", finish!());
    reloads("MOV to CR4 that changes PSE", toggle_pse);
    let toggle_paging = snippet!(code32: start!(), "mov eax, cr0", "and eax, 0x7fffffff", "mov cr0, eax",
        "or eax, 0x80000000", "mov cr0, eax", finish!());
    reloads("CR0.PG off and on", toggle_paging);
    let plain =
        snippet!(code32: start!(), "mov ebp, ebx", "xor eax, eax", "cpuid", "mov ebx, ebp", finish!());
    let regs = attempt("CPUID", plain);
    check_eq!(regs.rdx, 0xaaaa, "CPUID reloads no pointer entries");
    reserved_bits();
}

fn attempt(what: &str, code: Snippet) -> Regs {
    for (index, entry) in [IDENTITY | 1, FIRST | 1, 0, 0].iter().enumerate() {
        check_eq!(write64(PDPT + 8 * index as u64, *entry), Ok(()), "write");
    }
    let mut regs = Regs { rdi: PDPT, rsi: SECOND | 1, ..Regs::default() };
    check_eq!(run(Mode::Protected32, code, &mut regs), Ok(()), "{what}");
    check_eq!(regs.rbx, 0xaaaa, "window before {what}");
    regs
}

fn reloads(what: &str, code: Snippet) {
    let regs = attempt(what, code);
    check_eq!(regs.rcx, 0xaaaa, "window after a change in memory alone, before {what}");
    check_eq!(regs.rdx, 0xbbbb, "window after {what}");
}

fn reserved_bits() {
    for bit in [1, 2, 5, 6, 7, 8, 52, 63] {
        for (index, entry) in [IDENTITY | 1, FIRST | 1, 0, FIRST | 1 | 1 << bit].iter().enumerate() {
            check_eq!(write64(BAD_PDPT + 8 * index as u64, *entry), Ok(()), "write");
        }
        let code = snippet!(code32: start!(), "mov eax, cr3", "mov cr3, ebp", finish!());
        for (index, entry) in [IDENTITY | 1, FIRST | 1, 0, 0].iter().enumerate() {
            check_eq!(write64(PDPT + 8 * index as u64, *entry), Ok(()), "write");
        }
        let mut regs = Regs { rdi: PDPT, rsi: SECOND | 1, rbp: BAD_PDPT, ..Regs::default() };
        let result = run(Mode::Protected32, code, &mut regs);
        check_eq!(result, Err(Fault::GP), "MOV to CR3 of a table whose entry has bit {bit}");
        check_eq!(regs.rax, PDPT, "CR3 before the refused write");
    }
}
