//! A hypapp that is asked for an MSR of an MSR area may use every service: which guest runs, views, its memory.
//! hypapp: intercept
//! bare: no
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};

use guest::cpu::{rdmsr, wrmsr};
use guest::memory::write64;
use guest::vmx::prelude::*;
use guest::vmx::{Ept, allocate, read, write};
use x86::msr::Msr;

guest!(main);

/// The hypapp's: writes open and close a view, reads tell of the guest that runs.
const VIEW: Msr = Msr(0xc000_1010);
const NESTED: u64 = 1;
/// What the hypapp touches for a read.
const TOUCHED: u64 = 0x300_0000;
const ROUNDS: u64 = 3;

static PAGE: AtomicU64 = AtomicU64::new(0);
/// Whether the guest's guest could write the page, and what it read of the register.
static WROTE: AtomicU64 = AtomicU64::new(0);
static SEEN: AtomicU64 = AtomicU64::new(0);

fn main() {
    PAGE.store(allocate(), Ordering::SeqCst);
    check_eq!(rdmsr(VIEW), Ok(0), "no guest's guest runs");
    enter_operation();
    let mut ept = Ept::identity();
    ept.unmap(TOUCHED);
    let mut nested = Guest::new(attempt);
    let areas = Areas::of(&mut nested);
    for what in ["without EPT", "with EPT"] {
        for _ in 0..ROUNDS {
            only_nested_is_kept_out(&mut nested, &areas, what);
            only_l1_is_kept_out(&mut nested, &areas, what);
        }
        nested.use_ept(&ept);
    }
    entry_fails(&mut nested, &areas);
    leave_operation();
}

/// One entry each, all for the hypapp's register.
struct Areas {
    load: u64,
    store: u64,
    host: u64,
}

impl Areas {
    fn of(nested: &mut Guest) -> Self {
        let areas = Self { load: allocate(), store: allocate(), host: allocate() };
        for (address, count, area) in [
            (vmcs::ENTRY_MSR_LOAD_ADDRESS, vmcs::ENTRY_MSR_LOAD_COUNT, areas.load),
            (vmcs::EXIT_MSR_STORE_ADDRESS, vmcs::EXIT_MSR_STORE_COUNT, areas.store),
            (vmcs::EXIT_MSR_LOAD_ADDRESS, vmcs::EXIT_MSR_LOAD_COUNT, areas.host),
        ] {
            nested.write(address, area);
            nested.write(count, 1);
            write(area, VIEW.0.into());
        }
        areas
    }

    /// What an entry and what an exit writes to the register.
    fn set(&self, load: u64, host: u64) {
        write(self.load + 8, load);
        write(self.host + 8, host);
        write(self.store + 8, u64::MAX);
    }
}

fn page() -> u64 {
    PAGE.load(Ordering::SeqCst)
}

fn may_write() -> bool {
    write64(page(), 1).is_ok()
}

/// L2.
extern "C" fn attempt() {
    WROTE.store(may_write().into(), Ordering::SeqCst);
    SEEN.store(rdmsr(VIEW).unwrap_or(u64::MAX), Ordering::SeqCst);
}

fn ends(nested: &mut Guest, areas: &Areas, what: &str) {
    nested.call(attempt);
    let reason = nested.run();
    check!(reason == ExitReason::VMCALL && nested.has_ended(), "{what}: ends with {}", reason.name());
    // It does not try again what it was stored for, or read: its hypervisor is not asked.
    check_eq!(read(areas.store + 8), NESTED, "{what}: stored of a guest's guest");
    check_eq!(SEEN.load(Ordering::SeqCst), NESTED, "{what}: read by a guest's guest");
    check_eq!(rdmsr(VIEW), Ok(0), "{what}: read by its hypervisor");
}

/// The entry opens the view, the exit closes it.
fn only_nested_is_kept_out(nested: &mut Guest, areas: &Areas, what: &str) {
    areas.set(page(), 0);
    ends(nested, areas, what);
    check_eq!(WROTE.load(Ordering::SeqCst), 0, "{what}: the guest's guest writes to a read-only page");
    check!(may_write(), "{what}: its hypervisor writes where it has no view");
}

/// The exit opens the view, and the next entry closes it.
fn only_l1_is_kept_out(nested: &mut Guest, areas: &Areas, what: &str) {
    areas.set(0, page());
    ends(nested, areas, what);
    check_eq!(WROTE.load(Ordering::SeqCst), 1, "{what}: the guest's guest writes where it has no view");
    check!(!may_write(), "{what}: its hypervisor writes to a read-only page");
    check_eq!(wrmsr(VIEW, 0), Ok(()), "{what}: closing it");
    check!(may_write(), "{what}: its hypervisor writes where it has none any more");
}

/// An entry opens a view and then fails: the view is its hypervisor's.
fn entry_fails(nested: &mut Guest, areas: &Areas) {
    areas.set(page(), 0);
    write(areas.load + 16, Msr::IA32_FS_BASE.0.into());
    nested.write(vmcs::ENTRY_MSR_LOAD_COUNT, 2);
    nested.write(vmcs::EXIT_MSR_LOAD_COUNT, 0);
    nested.call(attempt);
    check_eq!(nested.run().basic(), 34, "an entry that fails by an MSR");
    check!(!may_write(), "its hypervisor has the view");
    check_eq!(rdmsr(VIEW), Ok(0), "the guest's guest did not begin");
    nested.write(vmcs::ENTRY_MSR_LOAD_COUNT, 1);
    nested.write(vmcs::EXIT_MSR_LOAD_COUNT, 1);
    only_nested_is_kept_out(nested, areas, "after an entry that failed");
}
