//! Table walks: EPT violations and misconfigurations of a hypervisor's own tables, at every level, loops included.
//! model: corei7_skylake_x
#![no_std]
#![no_main]

use guest::cpu::{cpuid, rdmsr_existing};
use guest::vmx::prelude::*;
use guest::vmx::{Ept, Failure, allocate, ept_violation, instruction, read, trial, write};
use guest::{Mode, Regs, Snippet, snippet};
use x86::msr::Msr;
use x86::vmx::capability::EptVpidCapability;

guest!(main);

const PRESENT: u64 = 7;
const WRITE_BACK: u64 = 6 << 3;
const LARGE: u64 = 1 << 7;
/// A page of the guest that nothing else uses, with tables of its own below the root.
const PAGE: u64 = 0x3000_1000;
/// Linear-address bits of a qualification: the address is valid, and translated.
const TRANSLATED: u64 = 3 << 7;

fn main() {
    enter_operation();
    let mut ept = Ept::identity();
    let mut nested = Guest::new(trial::perform);
    nested.use_ept(&ept);
    let target = allocate();
    rights(&mut nested, &mut ept, target);
    absent_at_each_level(&mut nested, &mut ept, target);
    misconfigurations(&mut nested, &mut ept, target);
    loops(&mut nested, &mut ept, target);
    large_pages(&mut nested, &mut ept);
    stale(&mut nested, &mut ept);
    pointers(&mut nested, &ept);
    leave_operation();
}

fn load() -> Snippet {
    snippet!("mov rax, [rdi]")
}

fn store() -> Snippet {
    snippet!("mov [rdi], rsi")
}

/// Reads and writes, so that only both rights will do.
fn exchange() -> Snippet {
    snippet!("xchg [rdi], rsi")
}

fn fetch() -> Snippet {
    snippet!("call rdi")
}

fn capability() -> EptVpidCapability {
    EptVpidCapability::from_bits_retain(rdmsr_existing(Msr(0x48c)))
}

fn invalidate(ept: &Ept) {
    check_eq!(instruction::invept(1, [ept.pointer(), 0]), Ok(()), "INVEPT");
}

/// Has the guest access `address` and gives the exit.
fn access(nested: &mut Guest, code: Snippet, address: u64) -> ExitReason {
    trial::begin(nested, Mode::Kernel64, code, Regs { rdi: address, rsi: 0x77, ..Regs::default() });
    nested.run()
}

/// Each access times each right.
fn rights(nested: &mut Guest, ept: &mut Ept, target: u64) {
    // RET, for the fetch.
    write(target, 0xc3);
    let executes_only = capability().contains(EptVpidCapability::EXECUTE_ONLY);
    for allowed in [0, 1, 3, 4, 5, 7] {
        if allowed == 4 && !executes_only {
            continue;
        }
        ept.map(PAGE, target, allowed);
        invalidate(ept);
        for (name, code, wanted) in [("read", load(), 1), ("write", store(), 2), ("fetch", fetch(), 4)] {
            let reason = access(nested, code, PAGE + 8 * (wanted & 2));
            if allowed & wanted == wanted {
                check_eq!(reason, ExitReason::VMCALL, "{name} where {allowed} is allowed");
                check_eq!(trial::result().0, Ok(()), "{name} where {allowed} is allowed");
                continue;
            }
            check_eq!(reason, ExitReason::EPT_VIOLATION, "{name} where {allowed} is allowed");
            let place = PAGE + 8 * (wanted & 2);
            let qualification = ept_violation(nested);
            check_eq!(
                qualification & 0xfff,
                wanted | allowed << 3 | TRANSLATED,
                "{name} where {allowed} is allowed"
            );
            check_eq!(nested.read(vmcs::GUEST_PHYSICAL_ADDRESS), place, "{name}: guest-physical address");
            check_eq!(nested.read(vmcs::GUEST_LINEAR_ADDRESS), place, "{name}: guest-linear address");
        }
    }
    ept.map(PAGE, target, 1);
    invalidate(ept);
    check_eq!(access(nested, exchange(), PAGE), ExitReason::EPT_VIOLATION, "exchange on a read-only page");
    let seen = ept_violation(nested) & 0xfff;
    check!(seen & 2 != 0 && seen & 0x1f8 == 1 << 3 | TRANSLATED, "exchange on a read-only page: {seen:#x}");
    // Mended, the same instruction goes on.
    ept.map(PAGE, target, PRESENT);
    write(target, 0x1122);
    check_eq!(nested.run(), ExitReason::VMCALL, "exchange after the right was given");
    check_eq!(trial::result().1.rsi, 0x1122, "what was exchanged");
    check_eq!(read(target), 0x77, "what was exchanged");
}

/// An entry without a right, at each level: the rights above count too.
fn absent_at_each_level(nested: &mut Guest, ept: &mut Ept, target: u64) {
    ept.map(PAGE, target, PRESENT);
    // Other guests' memory hangs on the entries of levels 3 and 4 too; a path of its own.
    let far = far_path(ept, target);
    for level in 1..=4 {
        let entry = ept.entry(far, level);
        let old = read(entry);
        for left in [0, 1, 3, 5] {
            write(entry, old & !7 | left);
            invalidate(ept);
            let reason = access(nested, store(), far);
            let expected = if left & 2 == 0 { ExitReason::EPT_VIOLATION } else { ExitReason::VMCALL };
            check_eq!(reason, expected, "write with {left} at level {level}");
            if left & 2 == 0 {
                let seen = ept_violation(nested) & 0xfff;
                check_eq!(seen, 2 | left << 3 | TRANSLATED, "qualification with {left} at level {level}");
                check_eq!(nested.read(vmcs::GUEST_PHYSICAL_ADDRESS), far, "address at level {level}");
            }
        }
        write(entry, old);
        invalidate(ept);
        check_eq!(access(nested, store(), far), ExitReason::VMCALL, "write after level {level} was mended");
    }
}

/// A guest-physical address that linear addresses reach and that shares no table but the root's: the third GiB.
fn far_path(ept: &mut Ept, target: u64) -> u64 {
    // Levels 4 and 3 are shared with all else, so only what is below the first GiB's end can be cut off there;
    // the guest's linear 3 GiB + 4 KiB leads to guest-physical 512 GiB + 4 KiB instead.
    let far = 512 << 30 | 0x1000;
    let pml4 = guest::cpu::read_cr3() & 0xf_ffff_f000;
    let pdpt = allocate();
    let directory = allocate();
    let table = allocate();
    write(table + 8, far | 3);
    write(directory, table | 3);
    write(pdpt, directory | 3);
    write(pml4 + 8, pdpt | 3);
    let _ = guest::cpu::write_cr3(guest::cpu::read_cr3());
    ept.map(far, target, PRESENT);
    far
}

/// What no entry may hold, at each level (SDM, "EPT Misconfigurations").
fn misconfigurations(nested: &mut Guest, ept: &mut Ept, target: u64) {
    let far = 512 << 30 | 0x1000;
    ept.map(far, target, PRESENT);
    let width = cpuid(0x8000_0008, 0).eax & 0xff;
    for level in 1..=4 {
        let entry = ept.entry(far, level);
        let old = read(entry);
        let rights = old & !7;
        let mut bad = [rights | 2, rights | 6, old | 1 << width, old | 1 << 51, 0, 0, 0];
        match level {
            1 => [bad[4], bad[5], bad[6]] = [2, 3, 7].map(|kind| old & !(7 << 3) | kind << 3),
            4 => [bad[4], bad[5]] = [old | 1 << 3, old | LARGE],
            _ => [bad[4], bad[5]] = [old | 1 << 3, old | 1 << 6],
        }
        for value in bad.into_iter().filter(|value| *value != 0) {
            write(entry, value);
            invalidate(ept);
            check_eq!(
                access(nested, load(), far),
                ExitReason::EPT_MISCONFIGURATION,
                "entry {value:#x} of level {level}"
            );
            check_eq!(
                nested.read(vmcs::GUEST_PHYSICAL_ADDRESS),
                far,
                "entry {value:#x} of level {level}: address"
            );
        }
        // Bits that are software's or ignored.
        for bit in [10, 11, 52, 56, 62] {
            write(entry, old | 1 << bit);
            invalidate(ept);
            check_eq!(access(nested, load(), far), ExitReason::VMCALL, "ignored bit {bit} of level {level}");
        }
        write(entry, old);
    }
    invalidate(ept);
}

/// Tables that lead back to themselves are tables like any other: the walk has four steps.
fn loops(nested: &mut Guest, ept: &mut Ept, target: u64) {
    let far = 512 << 30 | 0x1000;
    ept.map(far, target, PRESENT);
    let index_1 = 8 * (far >> 12 & 511);
    for level in 2..=4 {
        let entry = ept.entry(far, level);
        let old = read(entry);
        // The table that holds the entry, again.
        let own = entry & !0xfff;
        write(entry, own | PRESENT);
        invalidate(ept);
        let reason = access(nested, load(), far);
        check!(
            [ExitReason::EPT_VIOLATION, ExitReason::EPT_MISCONFIGURATION, ExitReason::VMCALL]
                .contains(&reason),
            "level {level} leads to itself: {}",
            reason.name()
        );
        write(entry, old);
        // The root, whatever the level.
        write(entry, ept.root() | PRESENT);
        invalidate(ept);
        let reason = access(nested, store(), far + index_1);
        check!(!reason.is_entry_failure(), "level {level} leads to the root: {}", reason.name());
        write(entry, old);
    }
    invalidate(ept);
    check_eq!(access(nested, load(), far), ExitReason::VMCALL, "after the loops");
}

/// 1 GiB and 2 MiB pages, and bits of their addresses that must be 0.
fn large_pages(nested: &mut Guest, ept: &mut Ept) {
    let far = 512 << 30 | 0x1000;
    let memory = allocate();
    write(memory + 0x10, 0x2222);
    for (level, capability_bit, size) in
        [(3, EptVpidCapability::PAGES_1G, 1 << 30), (2, EptVpidCapability::PAGES_2M, 1 << 21)]
    {
        let entry = ept.entry(far, level);
        let old = read(entry);
        let page = memory & !(size - 1);
        // The linear address that leads there stays; the page's place in it follows the memory's.
        write(entry, page | LARGE | WRITE_BACK | PRESENT);
        invalidate(ept);
        let reason = access(nested, load(), far);
        if capability().contains(capability_bit) {
            check_eq!(reason, ExitReason::VMCALL, "page of {size:#x} bytes");
            check_eq!(trial::result().1.rax, read(page + 0x1000), "page of {size:#x} bytes");
        } else {
            check_eq!(reason, ExitReason::EPT_MISCONFIGURATION, "page of {size:#x} bytes");
        }
        for bit in [12, 13, 20] {
            write(entry, page | 1 << bit | LARGE | WRITE_BACK | PRESENT);
            invalidate(ept);
            let reason = access(nested, load(), far);
            check_eq!(
                reason,
                ExitReason::EPT_MISCONFIGURATION,
                "address bit {bit} of a page of {size:#x} bytes"
            );
        }
        write(entry, old);
    }
    invalidate(ept);
}

/// Stale translations: what INVEPT forgets is forgotten, of one pointer and of all.
fn stale(nested: &mut Guest, ept: &mut Ept) {
    let far = 512 << 30 | 0x1000;
    let pages = [allocate(), allocate()];
    for (index, page) in pages.into_iter().enumerate() {
        write(page, 0xa0 + index as u64);
    }
    for round in 0..20_u64 {
        let index = (round & 1) as usize;
        ept.map(far, pages[index], PRESENT);
        let kind = if round & 2 == 0 { 1 } else { 2 };
        let pointer = if kind == 1 { ept.pointer() } else { 0 };
        check_eq!(instruction::invept(kind, [pointer, 0]), Ok(()), "INVEPT");
        check_eq!(access(nested, load(), far), ExitReason::VMCALL, "round {round}");
        check_eq!(trial::result().1.rax, 0xa0 + (round & 1), "what the page holds in round {round}");
    }
    // A right taken away, and a page taken away.
    ept.map(far, pages[0], 1);
    invalidate(ept);
    check_eq!(access(nested, store(), far), ExitReason::EPT_VIOLATION, "write after the right is gone");
    ept.unmap(far);
    invalidate(ept);
    check_eq!(access(nested, load(), far), ExitReason::EPT_VIOLATION, "read after the page is gone");
    // What was missing may be added without INVEPT.
    ept.map(far, pages[1], PRESENT);
    check_eq!(access(nested, load(), far), ExitReason::VMCALL, "read after the page is there");
}

/// EPT pointers that VM entry refuses (SDM, "Checks on VMX Controls").
fn pointers(nested: &mut Guest, ept: &Ept) {
    const SHADOW_STACKS: u64 = 1 << 23;
    let capability = rdmsr_existing(Msr::IA32_VMX_EPT_VPID_CAP);
    trial::begin(nested, Mode::Kernel64, load(), Regs { rdi: PAGE, ..Regs::default() });
    for bad in [
        ept.root(),
        ept.root() | 3 << 3 | 1,
        ept.root() | 2 << 3 | 6,
        ept.root() | 5 << 3 | 6,
        ept.pointer() | 1 << 7,
        ept.pointer() | 1 << 11,
        ept.pointer() | 1 << 51,
    ] {
        // Processors that check shadow stacks of supervisors by EPT have a use for this bit.
        if bad == ept.pointer() | 1 << 7 && capability & SHADOW_STACKS != 0 {
            continue;
        }
        nested.write(vmcs::EPT_POINTER, bad);
        check_eq!(nested.enter(), Err(Failure::Valid(7)), "EPT pointer {bad:#x}");
    }
    nested.write(vmcs::EPT_POINTER, ept.pointer());
}
