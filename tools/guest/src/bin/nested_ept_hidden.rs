//! Table walks: the hypervisor's memory in a hypervisor's tables: its guest reaches none of it, and no table is read there.
//! bare: no
//! cmdline: nested=on
#![no_std]
#![no_main]

use guest::boot;
use guest::vmx::prelude::*;
use guest::vmx::{Ept, allocate, instruction, read, trial, write};
use guest::{Fault, Mode, Regs, Snippet, snippet};

guest!(main);

const PAGE: u64 = 0x3000_1000;
const WRITE_BACK: u64 = 6 << 3;
const LARGE: u64 = 1 << 7;
const RIGHTS: u64 = 7;
const POINTER: u64 = 3 << 3 | 6;

fn main() {
    let hidden = boot::e820_24()
        .iter()
        .find(|record| record.kind == 2 && record.base() >= 1 << 20 && record.end() < 0xf000_0000)
        .map_or(0, |record| record.base());
    check!(hidden != 0, "there is a reserved range");
    enter_operation();
    let mut ept = Ept::identity();
    let mut nested = Guest::new(trial::perform);
    nested.use_ept(&ept);
    pages(&mut nested, &mut ept, hidden);
    tables(&mut nested, &mut ept, hidden);
    leave_operation();
}

fn access(nested: &mut Guest, code: Snippet, address: u64) -> ExitReason {
    trial::begin(nested, Mode::Kernel64, code, Regs { rdi: address, rsi: 0x77, ..Regs::default() });
    nested.run()
}

fn invalidate() {
    check_eq!(instruction::invept(2, [0, 0]), Ok(()), "INVEPT of all");
}

/// Pages of the hypervisor's, small and large: an access is a fault in the guest, as it is in its hypervisor.
fn pages(nested: &mut Guest, ept: &mut Ept, hidden: u64) {
    let small = ept.entry(PAGE, 1);
    for page in [hidden, hidden + 0x1000, hidden + 0x4_0000, hidden + 0x1f_f000] {
        write(small, page | WRITE_BACK | RIGHTS);
        invalidate();
        refuses(nested, PAGE + 8);
    }
    let large = ept.entry(PAGE, 2);
    let old = read(large);
    write(large, hidden | LARGE | WRITE_BACK | RIGHTS);
    invalidate();
    for offset in [0, 0x1000, 0x10_0000, 0x1f_f000] {
        refuses(nested, (PAGE & !0x1f_ffff) + offset);
    }
    write(large, old);
    ept.map(PAGE, allocate(), RIGHTS);
    invalidate();
    check_eq!(access(nested, snippet!("mov [rdi], rsi"), PAGE), ExitReason::VMCALL, "a page of its own");
    check_eq!(trial::result().0, Ok(()), "a page of its own");
}

fn refuses(nested: &mut Guest, address: u64) {
    for code in [snippet!("mov rax, [rdi]"), snippet!("mov [rdi], rsi"), snippet!("call rdi")] {
        check_eq!(access(nested, code, address), ExitReason::VMCALL, "access at {address:#x}");
        check_eq!(trial::result().0, Err(Fault::GP), "access at {address:#x}");
    }
}

/// Tables there read as all ones, which is no entry.
fn tables(nested: &mut Guest, ept: &mut Ept, hidden: u64) {
    for level in 2..=4 {
        let entry = ept.entry(PAGE, level);
        let old = read(entry);
        for table in [hidden, hidden + 0x1_0000, hidden + 0x10_0000] {
            write(entry, table | RIGHTS);
            invalidate();
            let reason = access(nested, snippet!("mov rax, [rdi]"), PAGE);
            check_eq!(reason, ExitReason::EPT_MISCONFIGURATION, "level {level} leads to {table:#x}");
        }
        write(entry, old);
    }
    for root in [hidden, hidden + 0x2_0000] {
        nested.write(vmcs::EPT_POINTER, root | POINTER);
        let reason = access(nested, snippet!("nop"), PAGE);
        check_eq!(reason, ExitReason::EPT_MISCONFIGURATION, "a root at {root:#x}");
    }
    nested.write(vmcs::EPT_POINTER, ept.pointer());
    invalidate();
    check_eq!(access(nested, snippet!("mov rax, [rdi]"), PAGE), ExitReason::VMCALL, "its own tables again");
}
