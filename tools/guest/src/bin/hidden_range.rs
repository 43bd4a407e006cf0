//! Memory that is not the guest's: reads show nothing, writes change nothing, jumps fault, whatever the access.
//!
//! Bare, a hole without any memory stands for the hypervisor's range. There is no jump into it: Bochs ends with
//! an error of its own where code runs outside memory.
#![no_std]
#![no_main]

use guest::boot::{self, Record};
use guest::cpu::{read_cr3, read_cr4, under_hypervisor, write_cr3, write_cr4};
use guest::memory::{FREE, read8, read16, read32, read64, write8, write16, write32, write64};
use guest::run::USER_BASE;
use guest::{Mode, Regs, check, check_eq, guest, println, run, snippet};

guest!(main);

const HOLE: u64 = 0xd000_0000;

fn main() {
    let reserved =
        |record: &&Record| record.kind == 2 && record.base() >= 1 << 20 && record.end() < 0xf000_0000;
    let mut ranges = 0;
    for record in boot::e820_24().iter().filter(reserved) {
        ranges += 1;
        println!("reserved {:#x}..{:#x}", record.base(), record.end());
        attack(record.base(), record.end(), true);
    }
    check!(ranges > 0 || !under_hypervisor(), "there is a reserved range");
    attack(HOLE, HOLE + 0x40_0000, false);
}

fn attack(start: u64, end: u64, can_jump: bool) {
    let step = ((end - start) / 24).next_multiple_of(0x1000);
    let samples = || (start..end).step_by(step as usize).chain([start + 0xff8, end - 8]);
    let first = read64(start);
    println!("{start:#x} reads {first:x?}");
    for address in samples() {
        check_eq!(read64(address), first, "every word reads alike, at {address:#x}");
        same_in_every_width(address, first.is_ok());
        for value in [0, 0x5a, 0xff] {
            let _ =
                (write64(address, u64::from(value) * 0x0101_0101_0101_0101), write32(address, value.into()));
            let _ = (write16(address + 2, value.into()), write8(address + 7, value));
            check_eq!(read64(address), first, "{address:#x} after a write of {value:#x}");
        }
        other_accesses(address);
        check_eq!(read64(address), first, "{address:#x} after all that");
    }
    page_walk(start);
    if can_jump {
        for address in samples() {
            let mut regs = Regs { rax: USER_BASE + address, ..Regs::default() };
            let result = run(Mode::User64, snippet!("jmp rax"), &mut regs);
            check!(result.is_err(), "jump to {address:#x}: {result:x?} rip={:#x}", regs.rip);
        }
    }
}

fn same_in_every_width(address: u64, is_readable: bool) {
    let seen = (read8(address).is_ok(), read16(address).is_ok(), read32(address).is_ok());
    check_eq!(seen, (is_readable, is_readable, is_readable), "narrow reads of {address:#x}");
    let words = (read32(address).ok(), read32(address + 4).ok());
    check_eq!(words.0, words.1, "both halves of the word at {address:#x}");
}

/// Accesses that a decoder of moves alone would not understand. Their outcome is free, their effect is not.
fn other_accesses(address: u64) {
    let old = read_cr4();
    check_eq!(write_cr4(old | 0x200), Ok(()), "CR4.OSFXSR");
    let page = address & !0xfff;
    for code in [
        snippet!("mov esi, 0x200000", "mov ecx, 64", "rep movsb"),
        snippet!("mov rsi, rdi", "mov edi, 0x200000", "mov ecx, 64", "rep movsb"),
        snippet!("mov ecx, 16", "rep stosd"),
        snippet!("mov ecx, 16", "repne scasb"),
        snippet!("lock xadd [rdi], eax"),
        snippet!("xchg [rdi], rax"),
        snippet!("lock cmpxchg [rdi], rbx"),
        snippet!("lock cmpxchg16b [rdi]"),
        snippet!("lock inc dword ptr [rdi]"),
        snippet!("bts dword ptr [rdi], 5"),
        snippet!("add rax, [rdi]"),
        snippet!("push qword ptr [rdi]", "pop qword ptr [rdi]"),
        snippet!("sgdt [rdi]"),
        snippet!("fxsave [rdi]"),
        snippet!(".byte 0x0f, 0x10, 0x07", ".byte 0x0f, 0x11, 0x07"),
        snippet!("mov edx, 0x3ff", "insb"),
        snippet!("mov edx, 0x64", "mov ecx, 3", "rep insb"),
        snippet!("mov rsi, rdi", "mov edx, 0x3ff", "outsb"),
        snippet!("clflush [rdi]", "invlpg [rdi]", "prefetcht0 [rdi]"),
    ] {
        let mut regs = Regs { rdi: page, rax: 0x1122_3344, ..Regs::default() };
        let _ = run(Mode::Kernel64, code, &mut regs);
    }
    // At CPL 3 a stack may lie there: an exception takes the kernel's own.
    let mut regs = Regs { rdi: USER_BASE + page + 0x800, ..Regs::default() };
    let code =
        snippet!("mov r15, rsp", "mov rsp, rdi", "push rax", "pop rbx", "call 2f", "2:", "mov rsp, r15");
    let _ = run(Mode::User64, code, &mut regs);
    check_eq!(write_cr4(old), Ok(()), "CR4 as before");
}

/// A page table in memory that is not the guest's maps nothing.
fn page_walk(table: u64) {
    let entry = (read_cr3() & !0xfff) + 8 * 3;
    for bits in [3, 7] {
        check_eq!(write64(entry, table | bits), Ok(()), "write");
        check_eq!(write_cr3(read_cr3()), Ok(()), "flush");
        for offset in [0, 0x1234_5678, 0x7f_ffff_fff8] {
            check!(read64(3 << 39 | offset).is_err(), "page table at {table:#x}");
            check!(write64(3 << 39 | offset, 0).is_err(), "page table at {table:#x}");
        }
    }
    check_eq!(write64(entry, 0), Ok(()), "write");
    check_eq!(write_cr3(read_cr3()), Ok(()), "flush");
    check!(read64(FREE).is_ok(), "memory afterwards");
}
