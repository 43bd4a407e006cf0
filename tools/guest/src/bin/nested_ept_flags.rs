//! Table walks: accessed and dirty flags in a hypervisor's own tables, and its page-modification log.
//! cmdline: nested=on
#![no_std]
#![no_main]

use guest::cpu::{rdmsr_existing, read_cr3, write_cr3};
use guest::vmx::prelude::*;
use guest::vmx::{Ept, allocate, instruction, read, trial, write};
use guest::{Mode, Regs, Snippet, println, snippet};
use x86::msr::Msr;
use x86::vmx::capability::EptVpidCapability;
use x86::vmx::controls::SecondaryControls;

guest!(main);

const ACCESSED: u64 = 1 << 8;
const DIRTY: u64 = 1 << 9;
const FLAGS_ENABLED: u64 = 1 << 6;
const PAGE: u64 = 0x3000_1000;
/// Linear address that only tables of this test translate.
const LINEAR: u64 = 1 << 39 | 1 << 38 | 0x1000;

fn main() {
    enter_operation();
    let capability = EptVpidCapability::from_bits_retain(rdmsr_existing(Msr(0x48c)));
    if capability.contains(EptVpidCapability::ACCESSED_DIRTY) {
        let mut ept = Ept::identity();
        let mut nested = Guest::new(trial::perform);
        nested.use_ept(&ept);
        ept.map(PAGE, allocate(), 7);
        without(&mut nested, &mut ept);
        nested.write(vmcs::EPT_POINTER, ept.pointer() | FLAGS_ENABLED);
        flags(&mut nested, &mut ept);
        walks_are_writes(&mut nested, &mut ept);
        log(&mut nested, &mut ept);
    } else {
        println!("the processor has no flags in EPT");
    }
    leave_operation();
}

fn load() -> Snippet {
    snippet!("mov rax, [rdi]")
}

fn store() -> Snippet {
    snippet!("mov [rdi], rsi")
}

fn access(nested: &mut Guest, code: Snippet, address: u64) -> ExitReason {
    trial::begin(nested, Mode::Kernel64, code, Regs { rdi: address, rsi: 0x77, ..Regs::default() });
    nested.run()
}

fn invalidate(ept: &Ept) {
    check_eq!(instruction::invept(1, [ept.pointer() | FLAGS_ENABLED, 0]), Ok(()), "INVEPT");
}

/// Clears the flags of all entries for [`PAGE`].
fn clear(ept: &mut Ept) {
    for level in 1..=4 {
        let entry = ept.entry(PAGE, level);
        write(entry, read(entry) & !(ACCESSED | DIRTY));
    }
    invalidate(ept);
}

/// Accessed flags of levels 4 to 1, and the dirty flag.
fn seen(ept: &mut Ept) -> ([bool; 4], bool) {
    let accessed = [4, 3, 2, 1].map(|level| read(ept.entry(PAGE, level)) & ACCESSED != 0);
    (accessed, read(ept.entry(PAGE, 1)) & DIRTY != 0)
}

/// Not enabled, flags are ignored and none is set.
fn without(nested: &mut Guest, ept: &mut Ept) {
    clear(ept);
    check_eq!(access(nested, store(), PAGE), ExitReason::VMCALL, "write without flags");
    check_eq!(seen(ept), ([false; 4], false), "flags that are not enabled");
}

fn flags(nested: &mut Guest, ept: &mut Ept) {
    for _ in 0..3 {
        clear(ept);
        check_eq!(access(nested, load(), PAGE), ExitReason::VMCALL, "read");
        check_eq!(seen(ept), ([true; 4], false), "flags after a read");
        check_eq!(access(nested, store(), PAGE), ExitReason::VMCALL, "write after a read");
        check_eq!(seen(ept), ([true; 4], true), "flags after a write");
        clear(ept);
        check_eq!(access(nested, store(), PAGE + 8), ExitReason::VMCALL, "write at once");
        check_eq!(seen(ept), ([true; 4], true), "flags after a write at once");
    }
    // What is not allowed is not written.
    let entry = ept.entry(PAGE, 1);
    write(entry, read(entry) & !2);
    clear(ept);
    check_eq!(access(nested, store(), PAGE), ExitReason::EPT_VIOLATION, "write that is not allowed");
    check_eq!(read(entry) & DIRTY, 0, "dirty flag after a write that is not allowed");
    write(entry, read(entry) | 2);
    invalidate(ept);
}

/// With flags, the processor's accesses to its guest's page tables are writes to the guest-physical page.
fn walks_are_writes(nested: &mut Guest, ept: &mut Ept) {
    let pml4 = read_cr3() & 0xf_ffff_f000;
    let tables = [allocate(), allocate(), allocate()];
    write(tables[2] + 8, allocate() | 3);
    write(tables[1], tables[2] | 3);
    write(tables[0] + 8 * 256, tables[1] | 3);
    write(pml4 + 8, tables[0] | 3);
    let _ = write_cr3(read_cr3());
    ept.map(tables[2], tables[2], 1);
    invalidate(ept);
    check_eq!(access(nested, load(), LINEAR), ExitReason::EPT_VIOLATION, "walk of a read-only page table");
    let qualification = nested.read(vmcs::EXIT_QUALIFICATION) & 0x1ff;
    check!(qualification & !1 == 2 | 1 << 3 | 1 << 7, "walk of a read-only page table: {qualification:#x}");
    check_eq!(nested.read(vmcs::GUEST_PHYSICAL_ADDRESS) & !0xfff, tables[2], "the table that was walked");
    ept.map(tables[2], tables[2], 7);
    invalidate(ept);
    check_eq!(nested.run(), ExitReason::VMCALL, "walk of a writable page table");
    check!(read(ept.entry(tables[2], 1)) & DIRTY != 0, "the walked table is dirty");
    write(pml4 + 8, 0);
    let _ = write_cr3(read_cr3());
}

/// Each page that becomes dirty is logged, from the end of the log down; a full log is an exit.
fn log(nested: &mut Guest, ept: &mut Ept) {
    if !nested.add_secondary(SecondaryControls::ENABLE_PML) {
        println!("the processor has no page-modification log");
        return;
    }
    // All else is dirty already, or is once the guest has run.
    let page = allocate();
    nested.write(vmcs::PML_ADDRESS, page);
    nested.write(vmcs::PML_INDEX, 511);
    clear(ept);
    check_eq!(access(nested, store(), PAGE), ExitReason::VMCALL, "run that makes its own pages dirty");
    clear(ept);
    nested.write(vmcs::PML_INDEX, 300);
    check_eq!(access(nested, store(), PAGE + 0x18), ExitReason::VMCALL, "write that is logged");
    check_eq!(nested.read(vmcs::PML_INDEX), 299, "index after a write");
    check_eq!(read(page + 8 * 300), PAGE, "entry of the log");
    check_eq!(access(nested, store(), PAGE + 0x18), ExitReason::VMCALL, "write to a dirty page");
    check_eq!(nested.read(vmcs::PML_INDEX), 299, "index after a write to a dirty page");
    clear(ept);
    nested.write(vmcs::PML_INDEX, 0xffff);
    let full = access(nested, store(), PAGE);
    check_eq!(full, ExitReason::PAGE_MODIFICATION_LOG_FULL, "write with a full log");
    check_eq!(read(ept.entry(PAGE, 1)) & DIRTY, 0, "dirty flag with a full log");
    nested.write(vmcs::PML_INDEX, 511);
    check_eq!(nested.run(), ExitReason::VMCALL, "write with the log emptied");
    check_eq!(read(page + 8 * 511), PAGE, "entry of the emptied log");
}
