//! A task that is entered while indirect branches are tracked has to begin with ENDBR32.
//! model: sapphire_rapids
#![no_std]
#![no_main]

use guest::legacy::{gate, tss_word};
use guest::memory::{FREE, low, read32, write32};
use guest::run::legacy_address;
use guest::smp::descriptor;
use guest::{Mode, Regs, check_eq, guest, needs, println, run, snippet};

guest!(main);

const NEW: u16 = 0x50;
const TSS: u64 = FREE;
const NOTES: u64 = FREE + 0x1000;
const STACK: u64 = FREE + 0x3000;

fn main() {
    needs!(guest::cpu::cpuid(7, 0).edx & 1 << 20 != 0, "tracking of branches");
    for index in 0..27 {
        check_eq!(write32(TSS + 4 * index, 0), Ok(()), "write");
    }
    // The new task begins behind the first jump (2 bytes), #CP's handler behind the task (36 bytes).
    let words = [legacy_address() + 2, 2, 0, 0, 0, 0, low(STACK), 0, 0, 0];
    let segments = [0x10, 0x18, 0x10, 0x10, 0x10, 0x10, 0, 108 << 16];
    for (index, value) in (8..).zip(words.into_iter().chain(segments)) {
        check_eq!(write32(TSS + 4 * index, value), Ok(()), "write");
    }
    descriptor(NEW).set(0x6b | (TSS & 0xff_ffff) << 16 | 0x89 << 40);
    let _ = tss_word(0);
    let target = u64::from(legacy_address()) + 2 + 36;
    let old = gate(21).replace(target & 0xffff | 0x18 << 16 | 0x8e00 << 32 | (target >> 16) << 48);
    check_eq!(write32(NOTES, 0), Ok(()), "write");
    let code = snippet!(code32:
        "jmp 2f",
        "3:",
        "mov dword ptr [0x201000], 2",
        "xor eax, eax", "xor edx, edx", "mov ecx, 0x6a2", "wrmsr",
        "int 0x80",
        ".org 3b + 36",
        "endbr32",
        "mov dword ptr [0x201000], 1",
        "xor eax, eax", "xor edx, edx", "mov ecx, 0x6a2", "wrmsr",
        "int 0x80",
        "2:",
        "mov eax, cr0", "or eax, 0x10000", "mov cr0, eax",
        "mov eax, cr4", "or eax, 0x800000", "mov cr4, eax",
        "mov eax, 4", "xor edx, edx", "mov ecx, 0x6a2", "wrmsr",
        ".byte 0xea, 0, 0, 0, 0, 0x50, 0");
    let mut regs = Regs::default();
    let result = run(Mode::Protected32, code, &mut regs);
    gate(21).set(old);
    println!("result {result:?} rip {:#x} eax {:#x} cr0 {:#x}", regs.rip, regs.rax, guest::cpu::read_cr0());
    check_eq!(read32(NOTES), Ok(1), "1: the new task took #CP, 2: it ran without ENDBR32");
}
