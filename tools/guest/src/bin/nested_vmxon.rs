//! Dangling pages: VMXON and VMPTRLD at the hypervisor, at devices, unaligned, out of range, and one page twice.
//! cpus: 2
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use guest::cpu::{cpuid, under_hypervisor, wait_until};
use guest::vmx::instruction::{vmclear, vmptrld, vmptrst, vmxoff, vmxon};
use guest::vmx::prelude::*;
use guest::vmx::{Failure, prepare, region, revision, verdict, write};
use guest::{apic, boot, smp};

guest!(main);

/// Memory of the screen, which is memory, but a device's.
const SCREEN: u64 = 0xa_0000;
const ROM: u64 = 0xf_0000;
const NOTHING: u64 = 0x8000_0000;

static PAGE: AtomicU64 = AtomicU64::new(0);
static IS_IN_USE: AtomicBool = AtomicBool::new(false);
static IS_OVER: AtomicBool = AtomicBool::new(false);

fn main() {
    check!(smp::start_others(1), "two CPUs");
    prepare();
    let page = region();
    let width = cpuid(0x8000_0008, 0).eax & 0xff;
    let bad =
        [page + 1, page + 8, page + 0x800, 1 << width, page | 1 << width, page | 1 << 52, 1 << 63, u64::MAX];
    let foreign =
        [boot::hidden_memory().unwrap_or(NOTHING), apic::base(), ROM, NOTHING, (1 << width) - 0x1000];
    let invalid = Err(Failure::Invalid);
    for place in bad.into_iter().chain(foreign) {
        check_eq!(vmxon(place), invalid, "VMXON at {place:#x}");
    }
    for wrong in [0, revision() ^ 1, revision() | 1 << 31] {
        write(page, wrong.into());
        check_eq!(vmxon(page), invalid, "VMXON of revision {wrong:#x}");
    }
    write(page, revision().into());
    check_eq!(vmxon(page), Ok(()), "VMXON");
    let current = region();
    check_eq!(vmclear(current).and_then(|()| vmptrld(current)), Ok(()), "a VMCS");
    for place in bad {
        check_eq!(vmptrld(place), Err(Failure::Valid(9)), "VMPTRLD at {place:#x}");
        check_eq!(vmclear(place), Err(Failure::Valid(2)), "VMCLEAR at {place:#x}");
    }
    for place in foreign {
        check_eq!(vmptrld(place), Err(Failure::Valid(11)), "VMPTRLD at {place:#x}");
    }
    check_eq!(vmptrld(page), Err(Failure::Valid(10)), "VMPTRLD of the VMXON region");
    check_eq!(vmclear(page), Err(Failure::Valid(3)), "VMCLEAR of the VMXON region");
    check_eq!(vmptrst(), current, "the current VMCS after all that");
    on_the_screen();
    check_eq!(vmxoff(), Ok(()), "VMXOFF");
    twice(page);
    leave_operation();
}

/// A VMCS in a device's memory works or does not, and nothing else suffers.
fn on_the_screen() {
    write(SCREEN, revision().into());
    let _ = vmclear(SCREEN);
    if vmptrld(SCREEN).is_ok() {
        check_eq!(vmclear(SCREEN), Ok(()), "VMCLEAR on the screen");
    }
    let mut nested = Guest::new(verdict::end);
    check_eq!(nested.run(), ExitReason::VMCALL, "a guest after it");
}

/// One page for two CPUs: as the VMXON region of both, and as the current VMCS of both.
fn twice(page: u64) {
    PAGE.store(page, Ordering::SeqCst);
    check_eq!(vmxon(page), Ok(()), "VMXON with a page that served before");
    let mut nested = Guest::new(verdict::end);
    smp::begin_on(1, other);
    check!(
        wait_until(smp::PATIENCE, || IS_IN_USE.load(Ordering::SeqCst)),
        "the other CPU is in VMX operation"
    );
    check_eq!(vmclear(page), Err(Failure::Valid(3)), "VMCLEAR of the region of both");
    check_eq!(nested.run(), ExitReason::VMCALL, "a guest of this CPU");
    if under_hypervisor() {
        both_current(&mut nested);
    }
    IS_OVER.store(true, Ordering::SeqCst);
    check!(wait_until(smp::PATIENCE, || smp::is_ready(1)), "the other CPU ends");
    nested.call(verdict::end);
    check_eq!(nested.run(), ExitReason::VMCALL, "a guest of this CPU in the end");
}

/// The manual leaves open what becomes of a VMCS that is current on two processors: here each has its own.
fn both_current(nested: &mut Guest) {
    PAGE.store(nested.region, Ordering::SeqCst);
    IS_IN_USE.store(false, Ordering::SeqCst);
    check!(wait_until(smp::PATIENCE, || IS_IN_USE.load(Ordering::SeqCst)), "the other CPU has it too");
    for round in 0..50 {
        nested.write(vmcs::TSC_OFFSET, round);
        nested.call(verdict::end);
        check_eq!(nested.run(), ExitReason::VMCALL, "round {round}");
        check_eq!(nested.read(vmcs::TSC_OFFSET), round, "a field of this CPU");
    }
    nested.write(vmcs::TSC_OFFSET, 0);
}

/// The other CPU.
fn other() {
    prepare();
    check_eq!(vmxon(PAGE.load(Ordering::SeqCst)), Ok(()), "VMXON with the other CPU's region");
    let mut own = Guest::new(verdict::end);
    check_eq!(own.run(), ExitReason::VMCALL, "a guest of the other CPU");
    let first = PAGE.load(Ordering::SeqCst);
    IS_IN_USE.store(true, Ordering::SeqCst);
    while !IS_OVER.load(Ordering::SeqCst) {
        let page = PAGE.load(Ordering::SeqCst);
        if page != first {
            let _ = vmptrld(page);
            IS_IN_USE.store(true, Ordering::SeqCst);
            let _ = vmclear(own.region);
        }
    }
    let _ = vmclear(own.region);
    leave_operation();
}
