//! CPL checks: VMX instructions raise #UD outside VMX operation and in modes without them, #GP at CPL 3, and faults of operands.
//! hypapp: quiesce
#![no_std]
#![no_main]

use guest::cpu::{read_cr0, read_cr3, read_cr4, under_hypervisor, write_cr0, write_cr3, write_cr4};
use guest::memory::FREE;
use guest::run::USER_BASE;
use guest::vmx::form::{Form, UNMAPPED};
use guest::vmx::prelude::*;
use guest::vmx::{Outcome, attempt, attempt_with, form, prepare, read, region, revision, write};
use guest::{Fault, Mode, Regs, cpu, snippet};

guest!(main);

const NOT_CANONICAL: u64 = 1 << 47;
const READ: u32 = 0;
const WRITE: u32 = 2;
const PRESENT: u32 = 1;

fn main() {
    let (all, vmxon) = (form::forms(), form::vmxon());
    prepare();
    outside(&all, vmxon);
    vmxon_conditions();
    enter_operation();
    undefined_in_modes(&all, vmxon);
    at_cpl_3(&all, vmxon);
    let nested = Guest::new(nothing);
    memory_operands(nested.region);
    read_only_operand();
    order_of_checks();
    control_registers();
    leave_operation();
    prepare();
    outside(&all, vmxon);
}

fn registers(operand: u64) -> Regs {
    Regs { rax: 0x1234, rbx: 0x6800, rcx: 7, rdx: 8, rsi: operand, rdi: 9, ..Regs::default() }
}

/// With CR4.VMXE and without VMX operation all are undefined but VMXON, whose fault is the privilege level's.
fn outside(all: &[Form], vmxon: Form) {
    for &Form { name, code64, .. } in all {
        // A hypervisor beneath may have a use for it.
        if name == "VMCALL" && under_hypervisor() {
            continue;
        }
        for operand in [FREE, UNMAPPED, NOT_CANONICAL] {
            for mode in [Mode::Kernel64, Mode::User64] {
                let outcome = attempt(mode, code64, &mut registers(operand));
                check_eq!(outcome, Outcome::UD, "{name} outside VMX operation in {mode:?} on {operand:#x}");
            }
        }
    }
    let Form { code64, code32, .. } = vmxon;
    let at_user = attempt(Mode::User64, code64, &mut registers(UNMAPPED));
    check_eq!(at_user, Outcome::GP, "VMXON at CPL 3");
    for mode in [Mode::Compatibility32, Mode::CompatibilityUser32] {
        let outcome = attempt(mode, code32, &mut registers(FREE));
        check_eq!(outcome, Outcome::UD, "VMXON in {mode:?}");
    }
    let _ = write_cr4(read_cr4() & !(1 << 13));
    for mode in [Mode::Kernel64, Mode::User64] {
        check_eq!(attempt(mode, code64, &mut registers(FREE)), Outcome::UD, "VMXON without VMXE in {mode:?}");
    }
    prepare();
}

/// Operands and control registers of a VMXON that does not succeed (SDM, "VMXON-Enter VMX Operation").
fn vmxon_conditions() {
    let code = form::vmxon().code64;
    let on = |page: u64| {
        write(FREE, page);
        attempt_with(code, registers(FREE))
    };
    let page = region();
    for bad in [page + 1, page + 0x800, 1 << 52, 1 << 63 | page] {
        check_eq!(on(bad), Outcome::INVALID, "VMXON at {bad:#x}");
    }
    for wrong in [0, revision() + 1, revision() | 1 << 31] {
        write(page, wrong.into());
        check_eq!(on(page), Outcome::INVALID, "VMXON with revision {wrong:#x}");
    }
    write(page, revision().into());
    write(FREE, page);
    check_eq!(attempt_with(code, registers(UNMAPPED)), Outcome::page_fault(READ), "VMXON of no memory");
    check_eq!(cpu::read_cr2(), UNMAPPED, "CR2 after it");
    check_eq!(attempt_with(code, registers(NOT_CANONICAL)), Outcome::GP, "VMXON of no address");
    let cr0 = read_cr0();
    check_eq!(write_cr0(cr0 & !(1 << 5)), Ok(()), "CR0.NE cleared");
    check_eq!(on(page), Outcome::GP, "VMXON without CR0.NE");
    check_eq!(attempt_with(code, registers(UNMAPPED)), Outcome::GP, "VMXON without CR0.NE of no memory");
    let _ = write_cr0(cr0);
    check_eq!(attempt_with(snippet!("vmxoff"), Regs::default()), Outcome::UD, "VMXOFF after failed VMXONs");
}

fn undefined_in_modes(all: &[Form], vmxon: Form) {
    for Form { name, code32, .. } in all.iter().copied().chain([vmxon]) {
        for mode in [Mode::Compatibility32, Mode::CompatibilityUser32] {
            let outcome = attempt(mode, code32, &mut registers(0x5000));
            check_eq!(outcome, Outcome::UD, "{name} in VMX operation in {mode:?}");
        }
    }
    check_eq!(attempt_with(snippet!("vmfunc"), Regs::default()), Outcome::UD, "VMFUNC in VMX root");
    // A register where memory is due, and LOCK.
    for code in [
        snippet!(".byte 0x66, 0x0f, 0x38, 0x80, 0xc6"),
        snippet!(".byte 0x66, 0x0f, 0x38, 0x81, 0xc6"),
        snippet!(".byte 0xf0, 0x0f, 0xc7, 0x36"),
        snippet!(".byte 0xf0, 0x0f, 0x78, 0xd8"),
    ] {
        check_eq!(attempt_with(code, registers(FREE)), Outcome::UD, "encodings that are not VMX");
    }
}

fn at_cpl_3(all: &[Form], vmxon: Form) {
    for Form { name, code64, .. } in all.iter().copied().chain([vmxon]) {
        for operand in [USER_BASE + FREE, UNMAPPED, NOT_CANONICAL] {
            let outcome = attempt(Mode::User64, code64, &mut registers(operand));
            check_eq!(outcome, Outcome::GP, "{name} at CPL 3 on {operand:#x}");
        }
    }
    check_eq!(
        attempt(Mode::User64, snippet!("vmfunc"), &mut Regs::default()),
        Outcome::UD,
        "VMFUNC at CPL 3"
    );
}

fn memory_operands(current: u64) {
    let rip = u64::from(vmcs::GUEST_RIP.encoding());
    let stack = Outcome::Fault(Fault { vector: 12, error_code: 0 });
    let cases = [
        ("VMCLEAR", snippet!("vmclear [rsi]"), snippet!("mov rbp, rsi", "vmclear [rbp]"), READ),
        ("VMPTRLD", snippet!("vmptrld [rsi]"), snippet!("mov rbp, rsi", "vmptrld [rbp]"), READ),
        ("VMPTRST", snippet!("vmptrst [rsi]"), snippet!("mov rbp, rsi", "vmptrst [rbp]"), WRITE),
        ("VMREAD", snippet!("vmread [rsi], rbx"), snippet!("mov rbp, rsi", "vmread [rbp], rbx"), WRITE),
        ("VMWRITE", snippet!("vmwrite rbx, [rsi]"), snippet!("mov rbp, rsi", "vmwrite rbx, [rbp]"), READ),
        ("INVEPT", snippet!("invept rax, [rsi]"), snippet!("mov rbp, rsi", "invept rax, [rbp]"), READ),
        ("INVVPID", snippet!("invvpid rax, [rsi]"), snippet!("mov rbp, rsi", "invvpid rax, [rbp]"), READ),
    ];
    for (name, code, by_stack, access) in cases {
        let at = |operand| Regs { rax: 1, rbx: rip, rsi: operand, ..Regs::default() };
        check_eq!(attempt_with(code, at(UNMAPPED)), Outcome::page_fault(access), "{name} on no memory");
        check_eq!(cpu::read_cr2(), UNMAPPED, "CR2 after {name}");
        // An operand of which only the end is missing: the fault is there.
        check_eq!(
            attempt_with(code, at(UNMAPPED - 4)),
            Outcome::page_fault(access),
            "{name} across into none"
        );
        check_eq!(attempt_with(code, at(NOT_CANONICAL)), Outcome::GP, "{name} on no address");
        check_eq!(attempt_with(code, at(NOT_CANONICAL - 4)), Outcome::GP, "{name} across into none");
        let through_stack = guest::run(Mode::Kernel64, by_stack, &mut at(NOT_CANONICAL));
        check_eq!(through_stack.map_err(Outcome::Fault), Err(stack), "{name} on no address of the stack");
        check_eq!(guest::vmx::instruction::vmptrst(), current, "current VMCS after {name}");
    }
}

/// CR0.WP and a page that may only be read.
fn read_only_operand() {
    // The page-directory entry of the first 2 MiB page that nothing else uses.
    let entry = entry_of(FREE);
    let old = read(entry);
    write(entry, old & !2);
    let _ = write_cr3(read_cr3());
    let _ = write_cr0(read_cr0() | 1 << 16);
    let at = Regs { rbx: vmcs::GUEST_RIP.encoding().into(), rsi: FREE, ..Regs::default() };
    let refused = Outcome::page_fault(PRESENT | WRITE);
    check_eq!(attempt_with(snippet!("vmptrst [rsi]"), at), refused, "VMPTRST to a read-only page");
    check_eq!(attempt_with(snippet!("vmread [rsi], rbx"), at), refused, "VMREAD to a read-only page");
    check_eq!(
        attempt_with(snippet!("vmwrite rbx, [rsi]"), at),
        Outcome::Done,
        "VMWRITE from a read-only page"
    );
    let _ = write_cr0(read_cr0() & !(1 << 16));
    check_eq!(attempt_with(snippet!("vmptrst [rsi]"), at), Outcome::Done, "VMPTRST to it without CR0.WP");
    write(entry, old);
    let _ = write_cr3(read_cr3());
}

/// Address of the page-directory entry for `address`, by the tables of `boot.S`.
fn entry_of(address: u64) -> u64 {
    const TABLE: u64 = 0xf_ffff_f000;
    let pdpt = read(read_cr3() & TABLE) & TABLE;
    let directory = read(pdpt + 8 * (address >> 30)) & TABLE;
    directory + 8 * (address >> 21 & 511)
}

/// A field that does not exist comes before the operand in memory that VMREAD would write.
fn order_of_checks() {
    let at = |field| Regs { rbx: field, rsi: UNMAPPED, ..Regs::default() };
    check_eq!(
        attempt_with(snippet!("vmread [rsi], rbx"), at(0xffff)),
        Outcome::valid(12),
        "VMREAD of no field"
    );
    let rip = vmcs::GUEST_RIP.encoding().into();
    let fault = Outcome::page_fault(WRITE);
    check_eq!(attempt_with(snippet!("vmread [rsi], rbx"), at(rip)), fault, "VMREAD of a field to no memory");
}

/// SDM, "Restrictions on VMX Operation": bits that VMX operation needs cannot be cleared.
fn control_registers() {
    let (cr0, cr4) = (read_cr0(), read_cr4());
    for bit in [0, 5, 31] {
        check_eq!(write_cr0(cr0 & !(1 << bit)), Err(Fault::GP), "CR0 bit {bit} cleared in VMX operation");
        check_eq!(read_cr0(), cr0, "CR0 after bit {bit}");
    }
    check_eq!(write_cr4(cr4 & !(1 << 13)), Err(Fault::GP), "CR4.VMXE cleared in VMX operation");
    check_eq!(read_cr4(), cr4, "CR4 after it");
    for bit in [1, 3, 16, 18] {
        check_eq!(write_cr0(cr0 ^ 1 << bit), Ok(()), "CR0 bit {bit} in VMX operation");
        check_eq!(write_cr0(cr0), Ok(()), "CR0 bit {bit} back");
    }
}

extern "C" fn nothing() {}
