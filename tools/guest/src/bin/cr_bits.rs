//! Control register bits: each can be set exactly where CPUID says so, works, and else raises #GP(0).
#![no_std]
#![no_main]

use guest::cpu::{
    cpuid, read_cr0, read_cr2, read_cr3, read_cr4, read_cr8, write_cr0, write_cr2, write_cr3, write_cr4,
    write_cr8,
};
use guest::run::USER_BASE;
use guest::{Fault, Mode, Regs, Snippet, apic, check_eq, guest, run, snippet};

guest!(main);

fn main() {
    cr0_bits();
    cr0_short_forms();
    cr4_bits();
    cr4_effects();
    address_registers();
    task_priority();
    for code in [
        snippet!(".byte 0x0f, 0x20, 0xc8"),
        snippet!(".byte 0x0f, 0x20, 0xe8"),
        snippet!(".byte 0x0f, 0x22, 0xf0"),
        snippet!(".byte 0x0f, 0x22, 0xf8"),
        snippet!(".byte 0x44, 0x0f, 0x20, 0xc8"),
    ] {
        faults(Mode::Kernel64, code, Fault::UD, "control register that does not exist");
    }
    for code in [
        snippet!("mov rax, cr0"),
        snippet!("mov cr0, rax"),
        snippet!("mov rax, cr2"),
        snippet!("mov rax, cr3"),
        snippet!("mov cr3, rax"),
        snippet!("mov rax, cr4"),
        snippet!("mov cr4, rax"),
        snippet!("mov cr8, rax"),
        snippet!("clts"),
        snippet!("lmsw ax"),
    ] {
        faults(Mode::User64, code, Fault::GP, "control register at CPL 3");
    }
}

fn cr0_bits() {
    // Caches are on for this: CD and NW then stand for themselves.
    let base = read_cr0() & !0x6000_0000;
    check_eq!(write_cr0(base), Ok(()), "CR0.CD and NW cleared");
    check_eq!(read_cr0(), base, "CR0.CD and NW cleared");
    // SDM, "Control Registers": reserved bits in the lower half are ignored, in the upper half they fault.
    for bit in [1, 2, 3, 5, 16, 18, 30] {
        let other = base ^ 1 << bit;
        check_eq!(write_cr0(other), Ok(()), "CR0 bit {bit} changed");
        check_eq!(read_cr0(), other, "CR0 bit {bit} changed");
        check_eq!(write_cr0(base), Ok(()), "CR0 bit {bit} changed back");
        check_eq!(read_cr0(), base, "CR0 bit {bit} changed back");
    }
    for bit in (6..16).chain([17]).chain(19..29).chain([4]) {
        check_eq!(write_cr0(base ^ 1 << bit), Ok(()), "CR0 reserved bit {bit}");
        check_eq!(read_cr0(), base, "CR0 reserved bit {bit} is ignored");
    }
    for bit in (32..64).chain([0, 31, 29]) {
        check_eq!(write_cr0(base ^ 1 << bit), Err(Fault::GP), "CR0 bit {bit}");
        check_eq!(read_cr0(), base, "CR0 after a refused change of bit {bit}");
    }
    check_eq!(write_cr0(base | 3 << 29), Ok(()), "CR0.CD with NW");
    check_eq!(read_cr0(), base | 3 << 29, "CR0.CD with NW");
    check_eq!(write_cr0(base), Ok(()), "CR0 as before");
}

fn cr0_short_forms() {
    let base = read_cr0();
    let mut regs = Regs { rax: 0xfff0 | base | 8, ..Regs::default() };
    check_eq!(run(Mode::Kernel64, snippet!("lmsw ax", "smsw rbx"), &mut regs), Ok(()), "LMSW");
    check_eq!(read_cr0(), base | 8, "LMSW sets TS and none of the upper bits");
    check_eq!(regs.rbx, base | 8, "SMSW gives CR0");
    check_eq!(run(Mode::Kernel64, snippet!("clts"), &mut regs), Ok(()), "CLTS");
    check_eq!(read_cr0(), base, "CLTS clears TS");
    regs.rax = base & 0xe;
    check_eq!(run(Mode::Kernel64, snippet!("lmsw ax"), &mut regs), Ok(()), "LMSW without PE");
    check_eq!(read_cr0(), base, "LMSW does not clear PE");
    regs.rax = base & 0xe | 9;
    let cell = [base & 0xe | 9];
    regs.rsi = cell.as_ptr() as u64;
    check_eq!(run(Mode::Kernel64, snippet!("lmsw [rsi]"), &mut regs), Ok(()), "LMSW from memory");
    check_eq!(read_cr0(), base | 8, "LMSW from memory sets TS");
    faults(Mode::Kernel64, snippet!("fnop"), Fault::NM, "x87 with CR0.TS");
    check_eq!(write_cr0(base), Ok(()), "CR0 as before");
    check_eq!(write_cr0(base | 4), Ok(()), "CR0.EM");
    faults(Mode::Kernel64, snippet!("fnop"), Fault::NM, "x87 with CR0.EM");
    check_eq!(write_cr0(base), Ok(()), "CR0 as before");
}

/// Linear-address-space separation: code in the lower half, as all of this is, could not go on with it.
const LASS: u32 = 27;

/// Whether CPUID lets CR4 bit `bit` be set.
fn cr4_bit_exists(bit: u32) -> bool {
    let (one, seven) = (cpuid(1, 0), cpuid(7, 0));
    let further = cpuid(7, 1);
    let has = |register: u32, bit: u32| register >> bit & 1 != 0;
    match bit {
        0 | 1 => has(one.edx, 1),
        2 => has(one.edx, 4),
        3 => has(one.edx, 2),
        4 => has(one.edx, 3),
        6 => has(one.edx, 7),
        7 => has(one.edx, 13),
        8 => true,
        9 => has(one.edx, 24),
        10 => has(one.edx, 25),
        11 => has(seven.ecx, 2),
        13 => has(one.ecx, 5),
        14 => has(one.ecx, 6),
        16 => has(seven.ebx, 0),
        17 => has(one.ecx, 17),
        18 => has(one.ecx, 26),
        19 => has(seven.ecx, 23),
        20 => has(seven.ebx, 7),
        21 => has(seven.ebx, 20),
        22 => has(seven.ecx, 3),
        23 => has(seven.ecx, 7) || has(seven.edx, 20),
        24 => has(seven.ecx, 31),
        25 => has(seven.edx, 5),
        LASS => seven.eax != 0 && has(further.eax, 6),
        28 => seven.eax != 0 && has(further.eax, 26),
        _ => false,
    }
}

fn cr4_bits() {
    let base = read_cr4();
    // CR4.CET wants CR0.WP.
    check_eq!(write_cr0(read_cr0() | 1 << 16), Ok(()), "CR0.WP");
    let is_left_out = |bit: u32| [5, 12].contains(&bit) || bit == LASS && cr4_bit_exists(LASS);
    for bit in (0..64).filter(|bit| !is_left_out(*bit)) {
        let exists = cr4_bit_exists(bit);
        let expected = if exists { Ok(()) } else { Err(Fault::GP) };
        check_eq!(write_cr4(base | 1 << bit), expected, "CR4 bit {bit}");
        let seen = if exists { base | 1 << bit } else { base };
        check_eq!(read_cr4(), seen, "CR4 after setting bit {bit}");
        check_eq!(write_cr4(base), Ok(()), "CR4 bit {bit} back");
        check_eq!(read_cr4(), base, "CR4 bit {bit} back");
    }
    // Neither PAE nor LA57 changes in 64-bit mode.
    for bit in [5, 12] {
        check_eq!(write_cr4(base ^ 1 << bit), Err(Fault::GP), "CR4 bit {bit} in 64-bit mode");
        check_eq!(read_cr4(), base, "CR4 after a refused change of bit {bit}");
    }
}

fn cr4_effects() {
    let base = read_cr4();
    check_eq!(write_cr4(base | 1 << 2 | 1 << 3), Ok(()), "CR4.TSD and DE");
    faults(Mode::User64, snippet!("rdtsc"), Fault::GP, "RDTSC at CPL 3 with CR4.TSD");
    faults(Mode::Kernel64, snippet!(".byte 0x0f, 0x21, 0xe0"), Fault::UD, "MOV from DR4 with CR4.DE");
    check_eq!(write_cr4(base), Ok(()), "CR4 as before");
    check_eq!(run(Mode::User64, snippet!("rdtsc"), &mut Regs::default()), Ok(()), "RDTSC at CPL 3");
    faults(Mode::User64, snippet!("xor ecx, ecx", "rdpmc"), Fault::GP, "RDPMC at CPL 3 without CR4.PCE");
    if cr4_bit_exists(16) {
        faults(Mode::Kernel64, snippet!("rdfsbase rax"), Fault::UD, "RDFSBASE without CR4.FSGSBASE");
        check_eq!(write_cr4(base | 1 << 16), Ok(()), "CR4.FSGSBASE");
        let result = run(Mode::User64, snippet!("rdfsbase rax"), &mut Regs::default());
        check_eq!(result, Ok(()), "RDFSBASE with CR4.FSGSBASE");
    }
    if cr4_bit_exists(20) {
        check_eq!(write_cr4(base | 1 << 20), Ok(()), "CR4.SMEP");
        let mut regs = Regs { rax: USER_BASE + 0x5000, ..Regs::default() };
        let result = run(Mode::Kernel64, snippet!("jmp rax"), &mut regs);
        // Without execute-disable the I/D bit appears with SMEP all the same.
        check_eq!(
            result,
            Err(Fault { vector: 14, error_code: 0x11 }),
            "fetch from a user page with CR4.SMEP"
        );
    }
    if cr4_bit_exists(21) {
        check_eq!(write_cr4(base | 1 << 21), Ok(()), "CR4.SMAP");
        let result = guest::memory::read8(USER_BASE + 0x5000);
        check_eq!(result, Err(Fault { vector: 14, error_code: 1 }), "read of a user page with CR4.SMAP");
    }
    check_eq!(write_cr4(base), Ok(()), "CR4 as before");
}

fn address_registers() {
    let base = read_cr3();
    let width = cpuid(0x8000_0008, 0).eax & 0xff;
    for bit in [3, 4] {
        check_eq!(write_cr3(base ^ 1 << bit), Ok(()), "CR3 bit {bit}");
        check_eq!(read_cr3(), base ^ 1 << bit, "CR3 bit {bit}");
    }
    check_eq!(write_cr3(base), Ok(()), "CR3 as before");
    for bit in width..64 {
        check_eq!(write_cr3(base | 1 << bit), Err(Fault::GP), "CR3 bit {bit} beyond the physical address");
        check_eq!(read_cr3(), base, "CR3 after a refused change of bit {bit}");
    }
    for value in [0, !0, 0x1234_5678_9abc_def0] {
        check_eq!(write_cr2(value), Ok(()), "CR2");
        check_eq!(read_cr2(), value, "CR2");
    }
}

fn task_priority() {
    for value in 0..16 {
        check_eq!(write_cr8(value), Ok(()), "CR8 = {value}");
        check_eq!(read_cr8(), value, "CR8");
        check_eq!(u64::from(apic::read(apic::register::TPR)), value << 4, "task priority follows CR8");
    }
    check_eq!(write_cr8(0), Ok(()), "CR8 as before");
    for value in [0x10, 0x100, 1 << 32, !0] {
        check_eq!(write_cr8(value), Err(Fault::GP), "CR8 = {value:#x}");
    }
}

fn faults(mode: Mode, code: Snippet, fault: Fault, what: &str) {
    let mut regs = Regs { rax: read_cr0(), ..Regs::default() };
    check_eq!(run(mode, code, &mut regs), Err(fault), "{what}");
}
