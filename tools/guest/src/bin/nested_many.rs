//! Reference leaks: thousands of VMCSs and hundreds of EPT pointers on one CPU, each with what is its own.
#![no_std]
#![no_main]

use guest::vmx::instruction::{vmclear, vmptrld, vmptrst};
use guest::vmx::prelude::*;
use guest::vmx::{Ept, allocate, allocate_run, instruction, read, revision, trial, write};
use guest::{Mode, Regs, snippet};

guest!(main);

const VMCSS: u64 = 2500;
const POINTERS: usize = 400;
/// Behind the first 4 GiB, so that each root has tables of its own for it.
const FAR: u64 = 512 << 30;

fn main() {
    enter_operation();
    control_structures();
    pointers();
    leave_operation();
}

/// All of them active at once, then all of them cleared.
fn control_structures() {
    // A list of them all would not fit on the stack.
    let first = allocate_run(VMCSS);
    let all = || (0..VMCSS).map(|index| (index, first + 4096 * index));
    for (index, region) in all() {
        write(region, revision().into());
        check_eq!(vmclear(region).and_then(|()| vmptrld(region)), Ok(()), "VMCS {index}");
        instruction::write(vmcs::GUEST_RIP, index << 20 | 0x1234);
        instruction::write(vmcs::EXCEPTION_BITMAP, guest::memory::low(index));
    }
    for (index, region) in all().rev() {
        check_eq!(vmptrld(region), Ok(()), "VMCS {index} again");
        check_eq!(vmptrst(), region, "VMCS {index} is current");
        check_eq!(instruction::read(vmcs::GUEST_RIP), index << 20 | 0x1234, "VMCS {index}");
        check_eq!(u64::from(instruction::read(vmcs::EXCEPTION_BITMAP)), index, "VMCS {index}");
    }
    for (_, region) in all() {
        check_eq!(vmclear(region), Ok(()), "VMCLEAR");
    }
    check_eq!(vmptrst(), u64::MAX, "nothing is current in the end");
}

/// One guest under many tables, which differ in one page, back and forth.
fn pointers() {
    let shared = Ept::identity();
    let mut nested = Guest::new(trial::perform);
    nested.use_ept(&shared);
    // A linear address that leads there.
    let (pdpt, directory, table) = (allocate(), allocate(), allocate());
    write(table, FAR | 3);
    write(directory, table | 3);
    write(pdpt, directory | 3);
    write((guest::cpu::read_cr3() & 0xf_ffff_f000) + 8, pdpt | 3);
    let roots: [u64; POINTERS] = core::array::from_fn(|index| root(&shared, index as u64));
    for round in 0..3 {
        for index in 0..POINTERS {
            // Every one in order, then far apart.
            let index = if round == 1 { index * 149 % POINTERS } else { index };
            nested.write(vmcs::EPT_POINTER, roots[index]);
            let regs = Regs { rdi: FAR, ..Regs::default() };
            trial::begin(&mut nested, Mode::Kernel64, snippet!("mov rax, [rdi]"), regs);
            let reason = nested.run();
            if !guest::check!(reason == ExitReason::VMCALL, "table {index}: {}", reason.name()) {
                return;
            }
            check_eq!(trial::result().1.rax, 0xbeef_0000 + index as u64, "what table {index} leads to");
        }
    }
}

/// An EPT pointer to the shared tables and to a page of its own, which holds its number.
fn root(shared: &Ept, index: u64) -> u64 {
    let [root, pdpt, directory, table, page] = core::array::from_fn(|_| allocate());
    write(page, 0xbeef_0000 + index);
    write(table, page | 6 << 3 | 7);
    write(directory, table | 7);
    write(pdpt, directory | 7);
    write(root, read(shared.root()));
    write(root + 8, pdpt | 7);
    root | 3 << 3 | 6
}
