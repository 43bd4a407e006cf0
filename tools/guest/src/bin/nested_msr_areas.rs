//! Uninitialised data: MSR areas of VM entries and exits load and store what they name, and nothing else.
//! cmdline: nested=on
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};

use guest::cpu::{rdmsr_existing, wrmsr_existing};
use guest::vmx::prelude::*;
use guest::vmx::verdict::{Entry, end};
use guest::vmx::{allocate_run, read, write};
use x86::msr::Msr;

guest!(main);

const KERNEL_GS_BASE: Msr = Msr::IA32_KERNEL_GS_BASE;
const SYSCALL: u64 = 1;

static SEEN: AtomicU64 = AtomicU64::new(0);

/// Pages for the three areas.
struct Areas {
    entry_load: u64,
    exit_store: u64,
    exit_load: u64,
}

fn main() {
    enter_operation();
    let mut nested = Guest::new(end);
    let areas =
        Areas { entry_load: allocate_run(2), exit_store: allocate_run(2), exit_load: allocate_run(2) };
    nested.write(vmcs::ENTRY_MSR_LOAD_ADDRESS, areas.entry_load);
    nested.write(vmcs::EXIT_MSR_STORE_ADDRESS, areas.exit_store);
    nested.write(vmcs::EXIT_MSR_LOAD_ADDRESS, areas.exit_load);
    there_and_back(&mut nested, &areas);
    many(&mut nested, &areas);
    switched(&mut nested, &areas);
    refused(&mut nested, &areas);
    leave_operation();
}

fn put(area: u64, index: u64, msr: u64, value: u64) {
    write(area + 16 * index, msr);
    write(area + 16 * index + 8, value);
}

fn value(area: u64, index: u64) -> u64 {
    read(area + 16 * index + 8)
}

fn set_counts(nested: &mut Guest, entry_load: u32, exit_store: u32, exit_load: u32) {
    nested.write(vmcs::ENTRY_MSR_LOAD_COUNT, entry_load);
    nested.write(vmcs::EXIT_MSR_STORE_COUNT, exit_store);
    nested.write(vmcs::EXIT_MSR_LOAD_COUNT, exit_load);
}

fn run(nested: &mut Guest, code: extern "C" fn(), what: &str) {
    nested.call(code);
    check_eq!(nested.run(), ExitReason::VMCALL, "{what}");
    check!(nested.has_ended(), "{what}");
}

/// L2: what it finds, and what it leaves.
extern "C" fn exchange() {
    SEEN.store(rdmsr_existing(KERNEL_GS_BASE), Ordering::SeqCst);
    wrmsr_existing(KERNEL_GS_BASE, 0x2222_0000);
}

fn there_and_back(nested: &mut Guest, areas: &Areas) {
    wrmsr_existing(KERNEL_GS_BASE, 0x1111_0000);
    let number = u64::from(KERNEL_GS_BASE.0);
    put(areas.entry_load, 0, number, 0x3333_0000);
    put(areas.exit_store, 0, number, 0);
    put(areas.exit_load, 0, number, 0x4444_0000);
    set_counts(nested, 1, 1, 1);
    run(nested, exchange, "one of each");
    check_eq!(SEEN.load(Ordering::SeqCst), 0x3333_0000, "what the entry loaded");
    check_eq!(value(areas.exit_store, 0), 0x2222_0000, "what the exit stored");
    check_eq!(rdmsr_existing(KERNEL_GS_BASE), 0x4444_0000, "what the exit loaded");
    // Without areas the register is the same for both.
    set_counts(nested, 0, 0, 0);
    run(nested, exchange, "no areas");
    check_eq!(SEEN.load(Ordering::SeqCst), 0x4444_0000, "L1's value in L2");
    check_eq!(rdmsr_existing(KERNEL_GS_BASE), 0x2222_0000, "L2's value in L1");
}

/// Entries are carried out in their order, past the end of a page.
fn many(nested: &mut Guest, areas: &Areas) {
    let number = u64::from(KERNEL_GS_BASE.0);
    const COUNT: u32 = 300;
    for index in 0..u64::from(COUNT) {
        put(areas.entry_load, index, number, 0x1000 * index);
        put(areas.exit_store, index, number, 0);
    }
    set_counts(nested, COUNT, COUNT, 0);
    run(nested, exchange, "many entries");
    check_eq!(SEEN.load(Ordering::SeqCst), 0x1000 * u64::from(COUNT - 1), "the last of many");
    for index in [0, 255, 256, u64::from(COUNT) - 1] {
        check_eq!(value(areas.exit_store, index), 0x2222_0000, "value {index} of many");
    }
    set_counts(nested, 0, 0, 0);
}

/// L2: IA32_EFER as it finds it.
extern "C" fn look_at_efer() {
    SEEN.store(rdmsr_existing(Msr::IA32_EFER), Ordering::SeqCst);
}

/// A register that entries and exits switch in part.
fn switched(nested: &mut Guest, areas: &Areas) {
    let efer = rdmsr_existing(Msr::IA32_EFER);
    put(areas.entry_load, 0, u64::from(Msr::IA32_EFER.0), efer ^ SYSCALL);
    put(areas.exit_store, 0, u64::from(Msr::IA32_EFER.0), 0);
    set_counts(nested, 1, 1, 0);
    run(nested, look_at_efer, "EFER");
    check_eq!(SEEN.load(Ordering::SeqCst), efer ^ SYSCALL, "EFER that the entry loaded");
    check_eq!(value(areas.exit_store, 0), efer ^ SYSCALL, "EFER that the exit stored");
    check_eq!(rdmsr_existing(Msr::IA32_EFER), efer ^ SYSCALL, "EFER after the exit");
    put(areas.exit_load, 0, u64::from(Msr::IA32_EFER.0), efer);
    set_counts(nested, 0, 0, 1);
    run(nested, look_at_efer, "EFER back");
    check_eq!(SEEN.load(Ordering::SeqCst), efer ^ SYSCALL, "EFER of L1 in L2");
    check_eq!(rdmsr_existing(Msr::IA32_EFER), efer, "EFER that the exit loaded");
    set_counts(nested, 0, 0, 0);
}

/// The entry fails at the entry that cannot be loaded; host MSRs are loaded then.
fn refused(nested: &mut Guest, areas: &Areas) {
    let number = u64::from(KERNEL_GS_BASE.0);
    for (bad, value) in [
        (u64::from(Msr::IA32_FS_BASE.0), 0),
        (u64::from(Msr::IA32_GS_BASE.0), 0),
        (0x800, 0),
        (0x808, 0),
        (0x8ff, 0),
        (number | 1 << 32, 0),
        (number | 1 << 63, 0),
        (u64::from(Msr::IA32_EFER.0), 1 << 1),
        (u64::from(Msr::IA32_EFER.0), 0),
        (u64::from(Msr::IA32_PAT.0), 2),
        (number, 0x8000_0000_0000),
        (u64::from(Msr::IA32_VMX_BASIC.0), 0),
    ] {
        for position in [0, 2] {
            for index in 0..4 {
                put(areas.entry_load, index, number, 0x5555_0000 + index);
            }
            put(areas.entry_load, position, bad, value);
            put(areas.exit_load, 0, number, 0x6666_0000);
            set_counts(nested, 4, 0, 1);
            nested.call(end);
            let expected = Entry::Failed(34, position + 1);
            check_eq!(nested.try_entry(), expected, "MSR {bad:#x} {value:#x}");
            check_eq!(rdmsr_existing(KERNEL_GS_BASE), 0x6666_0000, "host MSR after a failed entry");
        }
    }
    set_counts(nested, 0, 0, 0);
}
