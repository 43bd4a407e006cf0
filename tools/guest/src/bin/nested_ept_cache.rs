//! Reference leaks: thousands of EPT pointers, and a guest's guest larger than the cache of its tables: all is served, if slowly.
//! cmdline: nested=on nested_pool=1 nested_ept02=4
#![no_std]
#![no_main]

use guest::vmx::prelude::*;
use guest::vmx::{Ept, allocate, allocate_run, instruction, read, trial, write};
use guest::{Mode, Regs, Snippet, snippet};

guest!(main);

const RIGHTS: u64 = 7;
const WRITE_BACK: u64 = 6 << 3;
const POINTER: u64 = 3 << 3 | 6;
const PAGE: u64 = 0x3000_1000;
const POINTERS: u64 = 2000;
/// Blocks of 2 MiB of which the guest touches a page.
const BLOCKS: u64 = 1024;
const FIRST_BLOCK: u64 = 0x4000_0000;

fn main() {
    enter_operation();
    let mut ept = Ept::identity();
    let mut nested = Guest::new(trial::perform);
    nested.use_ept(&ept);
    let target = allocate();
    write(target + 0x10, 0x1234);
    ept.map(PAGE, target, RIGHTS);
    many_pointers(&mut nested, &ept);
    large_guest(&mut nested, &mut ept, target);
    leave_operation();
}

fn load() -> Snippet {
    snippet!("mov rax, [rdi]")
}

fn value_at(nested: &mut Guest, address: u64, what: &str) -> u64 {
    trial::begin(nested, Mode::Kernel64, load(), Regs { rdi: address, ..Regs::default() });
    check_eq!(nested.run(), ExitReason::VMCALL, "{what}");
    trial::result().1.rax
}

/// Root after root over the same tables; the last ones again, and the first.
fn many_pointers(nested: &mut Guest, ept: &Ept) {
    let roots = allocate_run(POINTERS);
    for root in (0..POINTERS).map(|number| roots + 4096 * number) {
        write(root, read(ept.root()));
        nested.write(vmcs::EPT_POINTER, root | POINTER);
        check_eq!(value_at(nested, PAGE + 0x10, "a new pointer"), 0x1234, "through root {root:#x}");
    }
    for number in [POINTERS - 1, POINTERS - 2, 0, 1, POINTERS - 1] {
        nested.write(vmcs::EPT_POINTER, (roots + 4096 * number) | POINTER);
        check_eq!(value_at(nested, PAGE + 0x10, "a pointer again"), 0x1234, "through root {number}");
    }
    // A root without entries is no translation, whatever was cached under its frame before.
    let gone = roots + 4096 * (POINTERS - 1);
    write(gone, 0);
    check_eq!(instruction::invept(1, [gone | POINTER, 0]), Ok(()), "INVEPT");
    check_eq!(nested.run(), ExitReason::EPT_VIOLATION, "an empty root");
    nested.write(vmcs::EPT_POINTER, ept.pointer());
}

/// Every block of 2 MiB is the same table of 4 KiB pages, so that it takes a table of its own to run the guest.
fn large_guest(nested: &mut Guest, ept: &mut Ept, target: u64) {
    let table = allocate();
    for index in 0..512 {
        write(table + 8 * index, target | WRITE_BACK | RIGHTS);
    }
    let blocks = || (0..BLOCKS).map(|number| FIRST_BLOCK + (number << 21));
    for block in blocks() {
        write(ept.entry(block, 2), table | RIGHTS);
    }
    check_eq!(instruction::invept(2, [0, 0]), Ok(()), "INVEPT of all");
    for round in 0..2 {
        for block in blocks() {
            let address = block + 0x5010;
            check_eq!(value_at(nested, address, "a far page"), 0x1234, "{address:#x} in round {round}");
        }
    }
}
