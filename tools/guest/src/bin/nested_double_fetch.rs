//! Double fetch: another processor changes VMCS pages, bitmaps, MSR areas and EPT tables while they are in use.
//! cpus: 2
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use guest::cpu::{in8, rdmsr_existing, under_hypervisor, wait_until};
use guest::vmx::prelude::*;
use guest::vmx::verdict::Entry;
use guest::vmx::{Ept, Random, allocate, instruction, read, revision, trial, write};
use guest::{Mode, Regs, boot, smp, snippet};
use x86::msr::Msr;
use x86::vmx::controls::PrimaryControls;

guest!(main);

const ROUNDS: u64 = 600;
const RIGHTS: u64 = 7;
const WRITE_BACK: u64 = 6 << 3;
const LARGE: u64 = 1 << 7;
/// Linear and guest-physical address of the page that the tables change.
const PAGE: u64 = 0x3000_1000;
const FIRST: u64 = 0x1111_1111;
const SECOND: u64 = 0x2222_2222;
const PORT: u16 = 0x80;

/// Words that the other processor writes all the time, and the values that each takes in turn.
struct Target {
    place: AtomicU64,
    values: [AtomicU64; 6],
}

static TARGETS: [Target; 3] =
    [const { Target { place: AtomicU64::new(0), values: [const { AtomicU64::new(0) }; 6] } }; 3];
static IS_OVER: AtomicBool = AtomicBool::new(false);
static SEEN: AtomicU64 = AtomicU64::new(0);

fn main() {
    check!(smp::start_others(1), "two CPUs");
    enter_operation();
    if under_hypervisor() {
        // Elsewhere what is in the page of a current VMCS is the processor's.
        vmcs_page();
    }
    msr_area();
    msr_bitmap();
    port_bitmaps();
    tables();
    leave_operation();
}

/// Has the other processor write while `act` runs.
fn while_changing(targets: &[(u64, [u64; 6])], act: impl FnOnce()) {
    for (index, target) in TARGETS.iter().enumerate() {
        let (place, values) = targets.get(index).copied().unwrap_or((0, [0; 6]));
        target.place.store(place, Ordering::SeqCst);
        for (slot, value) in target.values.iter().zip(values) {
            slot.store(value, Ordering::SeqCst);
        }
    }
    IS_OVER.store(false, Ordering::SeqCst);
    smp::begin_on(1, change);
    act();
    IS_OVER.store(true, Ordering::SeqCst);
    check!(wait_until(smp::PATIENCE, || smp::is_ready(1)), "the other CPU ends");
}

/// The other processor.
fn change() {
    let mut random = Random::new(0x5eed);
    while !IS_OVER.load(Ordering::SeqCst) {
        for target in &TARGETS {
            let place = target.place.load(Ordering::SeqCst);
            if place != 0 {
                let value = &target.values[guest::memory::low(random.below(6)) as usize];
                write(place, value.load(Ordering::SeqCst));
            }
        }
    }
}

/// What is in the page of a current VMCS is nobody's.
fn vmcs_page() {
    let mut nested = Guest::new(read_page_of_l1);
    let junk = [0, u64::MAX, 0x8000_0b0d_8000_0b0d, 0x4141_4141_4141_4141, 1, 1 << 63];
    let page = nested.region;
    while_changing(&[(page + 16 + 8 * 40, junk), (page + 0x200, junk), (page + 8, junk)], || {
        for round in 0..ROUNDS {
            nested.call(read_page_of_l1);
            nested.write(vmcs::TSC_OFFSET, round);
            check_eq!(nested.run(), ExitReason::VMCALL, "a guest whose VMCS page is written");
            check_eq!(nested.read(vmcs::TSC_OFFSET), round, "a field whose page is written");
            check_eq!(nested.read(vmcs::HOST_CS_SELECTOR), 8, "the host's CS");
        }
    });
    nested.write(vmcs::TSC_OFFSET, 0);
    // Taken up again, it is what somebody wrote: the entry's checks see to that.
    for round in 0..ROUNDS / 4 {
        nested.clear();
        let mut random = Random::new(round + 1);
        for offset in (8..4096).step_by(8) {
            if random.below(20) == 0 {
                write(page + offset, random.word());
            }
        }
        write(page, revision().into());
        nested.load();
        let outcome = nested.enter();
        check!(outcome.is_err() || instruction::read(vmcs::EXIT_REASON) >> 31 == 1, "junk: {outcome:?}");
    }
}

extern "C" fn read_page_of_l1() {
    SEEN.store(read(PAGE_OF_L1.load(Ordering::SeqCst)), Ordering::SeqCst);
}

static PAGE_OF_L1: AtomicU64 = AtomicU64::new(0x40_0000);

/// L2: its KERNEL_GS_BASE; bases and EFER are what the VMCS says.
extern "C" fn look_at_msrs() {
    SEEN.store(rdmsr_existing(Msr::IA32_KERNEL_GS_BASE), Ordering::SeqCst);
}

/// An entry of the area is either whole or refused, with its own number.
fn msr_area() {
    let mut nested = Guest::new(look_at_msrs);
    let area = allocate();
    let [kernel, bad] = [Msr::IA32_KERNEL_GS_BASE, Msr::IA32_GS_BASE].map(|msr| u64::from(msr.0));
    let (gs, old) = (rdmsr_existing(Msr::IA32_GS_BASE), rdmsr_existing(Msr::IA32_KERNEL_GS_BASE));
    write(area, kernel);
    nested.write(vmcs::ENTRY_MSR_LOAD_ADDRESS, area);
    nested.write(vmcs::ENTRY_MSR_LOAD_COUNT, 1);
    let (mut entered, mut failed) = (0, 0);
    let numbers = [kernel, bad, kernel, kernel | 1 << 40, kernel, 0x808];
    let values = [FIRST, SECOND, FIRST, SECOND, FIRST, SECOND];
    while_changing(&[(area, numbers), (area + 8, values)], || {
        for _ in 0..ROUNDS {
            nested.call(look_at_msrs);
            match nested.try_entry() {
                Entry::Entered => {
                    entered += 1;
                    let seen = SEEN.load(Ordering::SeqCst);
                    check!(seen == FIRST || seen == SECOND, "what an entry loaded: {seen:#x}");
                }
                other => {
                    failed += 1;
                    check_eq!(other, Entry::Failed(34, 1), "an entry that cannot be loaded");
                }
            }
            check_eq!(rdmsr_existing(Msr::IA32_GS_BASE), gs, "the GS base of L1");
        }
    });
    check!(entered > 0 && failed > 0, "{entered} entries and {failed} failures");
    guest::cpu::wrmsr_existing(Msr::IA32_KERNEL_GS_BASE, old);
}

/// L2: reads what lives in its VMCS, and what does not.
extern "C" fn read_registers() {
    let (fs, kernel) = (rdmsr_existing(Msr::IA32_FS_BASE), rdmsr_existing(Msr::IA32_KERNEL_GS_BASE));
    SEEN.store(fs ^ kernel << 1, Ordering::SeqCst);
}

/// A register either leaves or reads as L2's.
fn msr_bitmap() {
    let mut nested = Guest::new(read_registers);
    let bitmap = allocate();
    nested.write(vmcs::MSR_BITMAPS, bitmap);
    nested.write(vmcs::GUEST_FS_BASE, 0x5555_0000);
    let kernel = rdmsr_existing(Msr::IA32_KERNEL_GS_BASE);
    // The bits of C0000100H to C0000102H.
    let words = [0, 1, 0, 4, 5, 7];
    let (mut left, mut stayed) = (0, 0);
    while_changing(&[(bitmap + 1024 + 0x20, words)], || {
        for _ in 0..ROUNDS {
            nested.call(read_registers);
            let mut reason = nested.run();
            while reason == ExitReason::RDMSR {
                left += 1;
                let value = if nested.registers.rcx & 0xff == 0 { 0x5555_0000 } else { kernel };
                nested.registers.rax = value & 0xffff_ffff;
                nested.registers.rdx = value >> 32;
                nested.advance();
                reason = nested.run();
            }
            stayed += 1;
            check_eq!(reason, ExitReason::VMCALL, "the end of L2");
            check_eq!(SEEN.load(Ordering::SeqCst), 0x5555_0000 ^ kernel << 1, "registers of L2");
        }
    });
    check!(left > 0 && left < 2 * stayed, "{left} of {} reads left", 2 * stayed);
}

extern "C" fn read_port() {
    let _ = in8(PORT);
}

fn port_bitmaps() {
    let mut nested = Guest::new(read_port);
    let (a, b) = (allocate(), allocate());
    check!(nested.add_primary(PrimaryControls::USE_IO_BITMAPS), "I/O bitmaps");
    nested.write(vmcs::IO_BITMAP_A, a);
    nested.write(vmcs::IO_BITMAP_B, b);
    let place = a + u64::from(PORT) / 8;
    let mut left = 0;
    while_changing(&[(place, [0, 1, 0, u64::MAX, 0, 2])], || {
        for _ in 0..ROUNDS {
            nested.call(read_port);
            let mut reason = nested.run();
            if reason == ExitReason::IO_INSTRUCTION {
                left += 1;
                nested.advance();
                reason = nested.run();
            }
            check_eq!(reason, ExitReason::VMCALL, "the end of L2");
        }
    });
    check!(left > 0 && left < ROUNDS, "{left} of {ROUNDS} accesses left");
}

/// A page either is one of those that L1 gives, or leaves.
fn tables() {
    let mut ept = Ept::identity();
    let mut nested = Guest::new(trial::perform);
    nested.use_ept(&ept);
    let [first, second] = [FIRST, SECOND].map(|value| {
        let page = allocate();
        write(page + 8, value);
        page
    });
    ept.map(PAGE, first, RIGHTS);
    let [leaf, directory] = [1, 2].map(|level| ept.entry(PAGE, level));
    let table = read(directory);
    let hidden = boot::hidden_memory().unwrap_or(second);
    let leaves = [first, second, hidden].map(|page| page | WRITE_BACK | RIGHTS);
    let leaf_values = [leaves[0], leaves[1], leaves[2], 0, leaves[0] & !0x38 | 2 << 3, 2];
    // A loop, a large page somewhere in the hypervisor, a page that is not aligned.
    let looped = ept.root() | RIGHTS;
    let large = hidden & !0x1f_ffff | LARGE | WRITE_BACK | RIGHTS;
    let tables = [table, table, looped, large, table, table | LARGE];
    let mut seen = [0; 4];
    while_changing(&[(leaf, leaf_values), (directory, tables)], || {
        for _ in 0..ROUNDS {
            check_eq!(instruction::invept(1, [ept.pointer(), 0]), Ok(()), "INVEPT");
            let regs = Regs { rdi: PAGE + 8, ..Regs::default() };
            trial::begin(&mut nested, Mode::Kernel64, snippet!("mov rax, [rdi]"), regs);
            match nested.run() {
                ExitReason::EPT_VIOLATION => seen[0] += 1,
                ExitReason::EPT_MISCONFIGURATION => seen[1] += 1,
                ExitReason::VMCALL => match trial::result() {
                    (Ok(()), regs) if regs.rax == FIRST || regs.rax == SECOND => seen[2] += 1,
                    // The loop and the pages beside show memory of L1's, or of the bare machine's.
                    _ => seen[3] += 1,
                },
                other => {
                    check!(false, "an access by changing tables: {}", other.name());
                }
            }
        }
    });
    check!(seen.iter().all(|&count| count > 0), "violations, misconfigurations, pages, others: {seen:?}");
    // All is well when it is over.
    write(leaf, leaves[0]);
    write(directory, table);
    check_eq!(instruction::invept(2, [0, 0]), Ok(()), "INVEPT of all");
    trial::begin(
        &mut nested,
        Mode::Kernel64,
        snippet!("mov rax, [rdi]"),
        Regs { rdi: PAGE + 8, ..Regs::default() },
    );
    check_eq!(nested.run(), ExitReason::VMCALL, "in the end");
    check_eq!(trial::result().1.rax, FIRST, "in the end");
}
