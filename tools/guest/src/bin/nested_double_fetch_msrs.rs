//! Double fetch: another processor changes what decides on WRMSR, MSR areas of exits, and the VMCS that is linked.
//! cpus: 2
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use guest::cpu::{rdmsr_existing, wait_until, wrmsr, wrmsr_existing};
use guest::smp;
use guest::vmx::prelude::*;
use guest::vmx::verdict::{Entry, end};
use guest::vmx::{Random, allocate, read, region, write};
use x86::msr::Msr;

guest!(main);

const ROUNDS: u64 = 400;
const FIRST: u64 = 0x1111_1000;
const SECOND: u64 = 0x2222_2000;
/// In no half of the address space.
const BAD: u64 = 1 << 60;
/// IA32_EFER.SCE, and a bit that there is not.
const SCE: u64 = 1;
const RESERVED: u64 = 1 << 2;
/// Where an MSR bitmap has the bits for writes of C0000000H and on.
const HIGH_WRITES: u64 = 3072;
const SHADOW: u64 = 1 << 31;

/// What the other processor writes all the time.
static PLACE: AtomicU64 = AtomicU64::new(0);
static VALUES: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4];
static IS_OVER: AtomicBool = AtomicBool::new(false);
/// What the guest's guest found, where that can be told from what it wrote.
static WRONG: AtomicU64 = AtomicU64::new(0);
static FAULTS: AtomicU64 = AtomicU64::new(0);
static SEEN: AtomicU64 = AtomicU64::new(0);

fn main() {
    check!(smp::start_others(1), "two CPUs");
    enter_operation();
    switched_registers();
    area_of_exit(Exit::Store);
    area_of_exit(Exit::Load);
    link();
    leave_operation();
}

/// Has the other processor write while `act` runs.
fn while_changing(place: u64, values: [u64; 4], act: impl FnOnce()) {
    let old = read(place);
    PLACE.store(place, Ordering::SeqCst);
    for (slot, value) in VALUES.iter().zip(values) {
        slot.store(value, Ordering::SeqCst);
    }
    IS_OVER.store(false, Ordering::SeqCst);
    smp::begin_on(1, change);
    act();
    IS_OVER.store(true, Ordering::SeqCst);
    check!(wait_until(smp::PATIENCE, || smp::is_ready(1)), "the other CPU ends");
    write(place, old);
}

/// The other processor.
fn change() {
    let place = PLACE.load(Ordering::SeqCst);
    let mut random = Random::new(0x5eed);
    while !IS_OVER.load(Ordering::SeqCst) {
        let value = &VALUES[guest::memory::low(random.below(4)) as usize];
        write(place, value.load(Ordering::SeqCst));
    }
}

/// L2: values that its registers take, and such as no register takes.
extern "C" fn write_registers() {
    for (msr, good, bad) in [
        (Msr::IA32_FS_BASE, FIRST, BAD),
        (Msr::IA32_GS_BASE, SECOND, BAD | 1),
        (Msr::IA32_EFER, rdmsr_existing(Msr::IA32_EFER) ^ SCE, RESERVED),
    ] {
        for value in [good, bad] {
            let before = rdmsr_existing(msr);
            match wrmsr(msr, value) {
                // Its hypervisor steps over it.
                Ok(()) if SEEN.swap(0, Ordering::SeqCst) == 1 => {
                    WRONG.fetch_add(u64::from(rdmsr_existing(msr) != before), Ordering::SeqCst);
                }
                Ok(()) => {
                    let is_right = value == good && rdmsr_existing(msr) == good;
                    WRONG.fetch_add(u64::from(!is_right), Ordering::SeqCst);
                }
                Err(_) => {
                    FAULTS.fetch_add(1, Ordering::SeqCst);
                    let is_right = value == bad && rdmsr_existing(msr) == before;
                    WRONG.fetch_add(u64::from(!is_right), Ordering::SeqCst);
                }
            }
        }
    }
}

/// A write leaves, or is the guest's guest's by the rules of WRMSR: what entries and exits switch is never the
/// hypervisor's own.
fn switched_registers() {
    let registers = [Msr::IA32_FS_BASE, Msr::IA32_GS_BASE, Msr::IA32_EFER];
    let own = registers.map(rdmsr_existing);
    let bitmap = allocate();
    let mut left = 0;
    for (offset, bits) in [(0x20, 3), (0x10, 1)] {
        let mut nested = Guest::new(write_registers);
        nested.write(vmcs::MSR_BITMAPS, bitmap);
        while_changing(bitmap + HIGH_WRITES + offset, [0, bits, 0, bits], || {
            for _ in 0..ROUNDS {
                nested.call(write_registers);
                let mut reason = nested.run();
                while reason == ExitReason::WRMSR {
                    left += 1;
                    SEEN.store(1, Ordering::SeqCst);
                    nested.advance();
                    reason = nested.run();
                }
                check_eq!(reason, ExitReason::VMCALL, "the end of L2");
                wrmsr_existing(Msr::IA32_EFER, own[2]);
                check_eq!(registers.map(rdmsr_existing), own, "registers of the hypervisor");
            }
        });
        nested.clear();
    }
    let faults = FAULTS.load(Ordering::SeqCst);
    check_eq!(WRONG.load(Ordering::SeqCst), 0, "writes that did something else, of {faults} that faulted");
    check!(left > 0 && faults > 0, "{left} writes left, {faults} faulted");
}

/// Which area of an exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exit {
    Store,
    Load,
}

/// What is stored is one of the registers named, whole; what is loaded is one of the values.
fn area_of_exit(which: Exit) {
    let msr = Msr::IA32_KERNEL_GS_BASE;
    let old = rdmsr_existing(msr);
    let area = allocate();
    let mut nested = Guest::new(end);
    let (address, count) = match which {
        Exit::Store => (vmcs::EXIT_MSR_STORE_ADDRESS, vmcs::EXIT_MSR_STORE_COUNT),
        Exit::Load => (vmcs::EXIT_MSR_LOAD_ADDRESS, vmcs::EXIT_MSR_LOAD_COUNT),
    };
    nested.write(address, area);
    nested.write(count, 1);
    nested.write(vmcs::GUEST_FS_BASE, SECOND);
    write(area, msr.0.into());
    let other = u64::from(Msr::IA32_FS_BASE.0);
    let (place, values) = match which {
        Exit::Store => (area, [msr.0.into(), other, msr.0.into(), other]),
        Exit::Load => (area + 8, [FIRST, SECOND, FIRST, SECOND]),
    };
    let mut seen = [0; 2];
    while_changing(place, values, || {
        for round in 0..ROUNDS {
            wrmsr_existing(msr, FIRST);
            nested.call(end);
            check_eq!(nested.run(), ExitReason::VMCALL, "{which:?}, round {round}");
            let value = if which == Exit::Store { read(area + 8) } else { rdmsr_existing(msr) };
            check!(value == FIRST || value == SECOND, "{which:?}, round {round}: {value:#x}");
            seen[usize::from(value == SECOND)] += 1;
        }
    });
    check!(seen.iter().all(|&count| count > 0), "{which:?}: each value, {seen:?} times");
    wrmsr_existing(msr, old);
    nested.clear();
}

/// A VMCS that is linked is of the kind that the controls say, or the entry fails.
fn link() {
    let linked = region();
    let mut nested = Guest::new(end);
    nested.write(vmcs::VMCS_LINK_POINTER, linked);
    let revision = read(linked);
    let (mut entered, mut failed) = (0, 0);
    while_changing(linked, [revision, revision | SHADOW, revision, revision ^ 1], || {
        for round in 0..ROUNDS {
            nested.call(end);
            match nested.try_entry() {
                Entry::Entered => entered += 1,
                other => {
                    failed += 1;
                    check_eq!(other, Entry::Failed(33, 4), "round {round}");
                }
            }
            check_eq!(nested.read(vmcs::VMCS_LINK_POINTER), linked, "the link");
        }
    });
    check!(entered > 0 && failed > 0, "{entered} entries and {failed} failures");
}
