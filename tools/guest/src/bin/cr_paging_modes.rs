//! Paging modes: off, 32-bit, PAE and four-level paging, entered and left in turn, by the rules of each step.
#![no_std]
#![no_main]

use guest::cpu::rdmsr;
use guest::memory::{FREE, low, read64, write32, write64};
use guest::{Fault, Mode, Regs, Snippet, check, check_eq, guest, run, snippet};
use x86::msr::Msr;

guest!(main);

const DIRECTORY32: u64 = FREE;
const PDPT: u64 = FREE + 0x1000;
const DIRECTORY: u64 = FREE + 0x2000;
const PML4: u64 = FREE + 0x3000;
const BAD_PDPT: u64 = FREE + 0x4000;
/// Memory that each mode maps at 1 GiB as well.
const WINDOW: u64 = 0x40_0000;

fn main() {
    make_tables();
    let paging32 = snippet!(code32:
        "mov cr3, edi", "mov eax, cr4", "or eax, 0x10", "mov cr4, eax",
        "mov eax, cr0", "or eax, 0x80000000", "mov cr0, eax",
        "mov ebx, [0x40000000]", "mov ecx, cr0",
        "and eax, 0x7fffffff", "mov cr0, eax", "mov edx, cr0");
    let pae = snippet!(code32:
        "mov cr3, edi", "mov eax, cr4", "or eax, 0x20", "mov cr4, eax",
        "mov eax, cr0", "or eax, 0x80000000", "mov cr0, eax",
        "mov ebx, [0x40000000]", "mov ecx, cr0",
        "and eax, 0x7fffffff", "mov cr0, eax", "mov edx, cr0");
    let long = snippet!(code32:
        "mov cr3, edi", "mov eax, cr4", "or eax, 0x20", "mov cr4, eax",
        "mov ecx, 0xc0000080", "rdmsr", "or eax, 0x100", "wrmsr",
        "mov eax, cr0", "or eax, 0x80000000", "mov cr0, eax",
        "mov ebx, [0x40000000]", "rdmsr", "mov esi, eax",
        "mov eax, cr0", "mov ebp, eax",
        "and eax, 0x7fffffff", "mov cr0, eax", "rdmsr", "mov edi, eax",
        "and eax, 0xfffffeff", "wrmsr", "mov ecx, ebp", "mov edx, cr0");
    for round in 0..20 {
        for (what, code, root) in
            [("32-bit", paging32, DIRECTORY32), ("PAE", pae, PDPT), ("four-level", long, PML4)]
        {
            check_eq!(write64(WINDOW, 0x1234_0000 + round), Ok(()), "write");
            let mut regs = Regs { rdi: root, ..Regs::default() };
            check_eq!(run(Mode::Protected32, code, &mut regs), Ok(()), "{what} paging");
            check_eq!(regs.rbx, 0x1234_0000 + round, "memory by {what} paging");
            check_eq!(regs.rcx >> 31, 1, "CR0.PG within {what} paging");
            check_eq!(regs.rdx >> 31, 0, "CR0.PG after {what} paging");
            if what == "four-level" {
                check_eq!((regs.rsi & 0x500, regs.rdi & 0x500), (0x500, 0x100), "EFER.LMA follows CR0.PG");
            }
        }
    }
    check!(rdmsr(Msr::IA32_EFER).is_ok_and(|efer| efer & 0x500 == 0x500), "EFER back in 64-bit mode");
    refusals();
}

fn make_tables() {
    for page in 0..1024 {
        // 4 MiB and 2 MiB pages, identity but for the window.
        let large = if page == 256 { WINDOW } else { page << 22 };
        check_eq!(write32(DIRECTORY32 + 4 * page, low(large | 0x83)), Ok(()), "write");
    }
    for page in 0..512 {
        check_eq!(write64(DIRECTORY + 8 * page, page << 21 | 0x83), Ok(()), "write");
        check_eq!(write64(FREE + 0x5000 + 8 * page, WINDOW | 0x83), Ok(()), "write");
        check_eq!(write64(PML4 + 8 * page, if page == 0 { FREE + 0x6003 } else { 0 }), Ok(()), "write");
    }
    // PAE has no write bit in its pointer entries, four-level paging wants one.
    for (table, bits) in [(PDPT, 1), (FREE + 0x6000, 3)] {
        check_eq!(write64(table, DIRECTORY | bits), Ok(()), "write");
        check_eq!(write64(table + 8, (FREE + 0x5000) | bits), Ok(()), "write");
        check_eq!(write64(table + 16, 0), Ok(()), "write");
        check_eq!(write64(table + 24, 0), Ok(()), "write");
    }
    check_eq!(write64(BAD_PDPT, DIRECTORY | 1), Ok(()), "write");
    for entry in 1..4 {
        // Bit 1 of a present PAE pointer entry is reserved.
        check_eq!(write64(BAD_PDPT + 8 * entry, DIRECTORY | 3), Ok(()), "write");
    }
    check!(read64(PDPT).is_ok(), "tables");
}

fn refusals() {
    let page_without_protection = snippet!(code16: "mov eax, cr0", "or eax, 0x80000000", "mov cr0, eax");
    refused(Mode::Real, page_without_protection, "CR0.PG without PE", 0);
    let long_without_pae = snippet!(code32:
        "mov cr3, edi", "mov eax, cr4", "and eax, 0xffffffdf", "mov cr4, eax",
        "mov ecx, 0xc0000080", "rdmsr", "or eax, 0x100", "wrmsr",
        "mov eax, cr0", "or eax, 0x80000000", "mov cr0, eax");
    refused(Mode::Protected32, long_without_pae, "CR0.PG with EFER.LME and without CR4.PAE", PML4);
    let pae = snippet!(code32:
        "mov cr3, edi", "mov eax, cr4", "or eax, 0x20", "mov cr4, eax",
        "mov eax, cr0", "or eax, 0x80000000", "mov cr0, eax");
    refused(Mode::Protected32, pae, "CR0.PG with a reserved bit in a PAE pointer entry", BAD_PDPT);
    let write_through_alone = snippet!(code32:
        "mov eax, cr0", "and eax, 0x9fffffff", "or eax, 0x20000000", "mov cr0, eax");
    refused(Mode::Protected32, write_through_alone, "CR0.NW without CD", 0);
    check!(rdmsr(Msr::IA32_EFER).is_ok_and(|efer| efer & 0x500 == 0x500), "EFER after refusals");
}

fn refused(mode: Mode, code: Snippet, what: &str, rdi: u64) {
    let mut regs = Regs { rdi, ..Regs::default() };
    check_eq!(run(mode, code, &mut regs), Err(Fault::GP), "{what}");
    // MOV CR0, EAX is the last instruction, three bytes in front of INT 80h.
    check_eq!(regs.rip, code.length() as u64 - 5, "{what} faults at the instruction");
}
