//! Debug registers: values come back, breakpoints strike at the right instruction, reserved bits fault.
#![no_std]
#![no_main]

use guest::cpu::{
    read_cr4, read_dr0, read_dr1, read_dr2, read_dr3, read_dr6, read_dr7, write_cr4, write_dr0, write_dr1,
    write_dr2, write_dr3, write_dr6, write_dr7,
};
use guest::{Fault, Mode, Regs, Snippet, check_eq, guest, run, snippet};

guest!(main);

/// DR6 without any condition, DR7 without any breakpoint.
const DR6_CLEAR: u64 = 0xffff_0ff0;
const DR7_CLEAR: u64 = 0x400;

fn main() {
    for value in [0, 0x1234_5678_9abc_def0, 0xffff_8000_0000_1000, !0] {
        for (write, read) in [
            (write_dr0 as fn(u64) -> _, read_dr0 as fn() -> u64),
            (write_dr1, read_dr1),
            (write_dr2, read_dr2),
            (write_dr3, read_dr3),
        ] {
            check_eq!(write(value), Ok(()), "address {value:#x}");
            check_eq!(read(), value, "address register");
        }
    }
    for bit in 32..64 {
        check_eq!(write_dr6(1 << bit), Err(Fault::GP), "DR6 bit {bit}");
        check_eq!(write_dr7(DR7_CLEAR | 1 << bit), Err(Fault::GP), "DR7 bit {bit}");
    }
    check_eq!(write_dr6(0), Ok(()), "DR6 cleared");
    check_eq!(read_dr6() & 0xffff_0ff0 & !0x1_0800, 0xfffe_07f0, "bits of DR6 that are always 1");
    check_eq!(write_dr7(0x5500 & 0xdfff), Ok(()), "DR7 written");
    check_eq!(read_dr7() & 0xd400, 0x400, "bits of DR7 that are fixed");
    check_eq!(write_dr7(DR7_CLEAR), Ok(()), "DR7 as before");
    for code in [snippet!("mov rax, dr0"), snippet!("mov dr7, rax"), snippet!("mov rax, dr6")] {
        check_eq!(run(Mode::User64, code, &mut Regs::default()), Err(Fault::GP), "debug register at CPL 3");
    }
    execution();
    data();
    io();
    general_detect();
}

/// Runs `code` with a breakpoint of kind `dr7` at `address`; where it struck and the conditions of DR6.
fn with_breakpoint(address: u64, dr7: u64, code: Snippet, mut regs: Regs) -> (Result<(), Fault>, u64, u64) {
    check_eq!(
        (write_dr0(address), write_dr6(DR6_CLEAR), write_dr7(DR7_CLEAR | dr7)),
        (Ok(()), Ok(()), Ok(())),
        "set"
    );
    let result = run(Mode::Kernel64, code, &mut regs);
    let conditions = read_dr6() & 0xe00f;
    check_eq!(write_dr7(DR7_CLEAR), Ok(()), "DR7 as before");
    (result, regs.rip, conditions)
}

fn execution() {
    // Behind instructions that a hypervisor may have to carry out itself.
    let codes = [
        snippet!("cpuid", "nop"),
        snippet!("wbinvd", "nop"),
        snippet!("in al, 0x64", "nop"),
        snippet!("rdtsc", "nop"),
    ];
    for code in codes {
        let seen = with_breakpoint(code.address() + 2, 2, code, Regs::default());
        check_eq!(seen, (Err(Fault::DB), 2, 1), "breakpoint on an instruction");
        let seen = with_breakpoint(code.address(), 2, code, Regs::default());
        check_eq!(seen, (Err(Fault::DB), 0, 1), "breakpoint on the first instruction");
        let seen = with_breakpoint(code.address(), 2, code, Regs { rflags: 1 << 16, ..Regs::default() });
        check_eq!((seen.0, seen.2), (Ok(()), 0), "RFLAGS.RF passes a breakpoint");
        let seen = with_breakpoint(code.address() + 2, 2, code, Regs { rflags: 1 << 16, ..Regs::default() });
        check_eq!(seen, (Err(Fault::DB), 2, 1), "RFLAGS.RF passes one instruction");
    }
}

fn data() {
    let cell = [0_u64; 2];
    let address = cell.as_ptr() as u64;
    let (write8, access8, write1) = (0x9_0002, 0xb_0002, 0x1_0002);
    let regs = Regs { rdi: address, rdx: 0x64, ..Regs::default() };
    let store = snippet!("nop", "mov [rdi], rax", "nop");
    check_eq!(with_breakpoint(address, write8, store, regs), (Err(Fault::DB), 4, 1), "breakpoint on a write");
    let load = snippet!("nop", "mov rax, [rdi]", "nop");
    check_eq!(with_breakpoint(address, access8, load, regs), (Err(Fault::DB), 4, 1), "breakpoint on a read");
    check_eq!(with_breakpoint(address, write8, load, regs).0, Ok(()), "no breakpoint on a read");
    let code = snippet!("insb", "nop");
    check_eq!(with_breakpoint(address, write1, code, regs), (Err(Fault::DB), 1, 1), "breakpoint on INSB");
}

fn io() {
    let old = read_cr4();
    check_eq!(write_cr4(old | 8), Ok(()), "CR4.DE");
    for port in [0x80, 0x64] {
        let code = snippet!("in al, dx", "nop");
        let regs = Regs { rdx: port, ..Regs::default() };
        let seen = with_breakpoint(port, 0x2_0002, code, regs);
        check_eq!(seen, (Err(Fault::DB), 1, 1), "breakpoint on port {port:#x}");
    }
    let buffer = [0_u8; 4];
    let code = snippet!("rep insb", "nop");
    let regs = Regs { rdx: 0x64, rcx: 3, rdi: buffer.as_ptr() as u64, ..Regs::default() };
    let seen = with_breakpoint(0x64, 0x2_0002, code, regs);
    check_eq!(seen, (Err(Fault::DB), 0, 1), "breakpoint on a port behind the first iteration");
    check_eq!(write_cr4(old), Ok(()), "CR4 as before");
}

fn general_detect() {
    check_eq!((write_dr6(DR6_CLEAR), write_dr7(DR7_CLEAR | 1 << 13)), (Ok(()), Ok(())), "DR7.GD");
    let mut regs = Regs::default();
    check_eq!(
        run(Mode::Kernel64, snippet!("nop", "mov rax, dr0"), &mut regs),
        Err(Fault::DB),
        "DR0 with DR7.GD"
    );
    check_eq!(regs.rip, 1, "DR7.GD faults at the instruction");
    check_eq!(read_dr6() & 0xe00f, 1 << 13, "DR6.BD");
    check_eq!(read_dr7() & 1 << 13, 0, "DR7.GD is cleared by the exception");
}
