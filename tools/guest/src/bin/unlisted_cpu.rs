//! The second CPU, which the firmware may not have listed: if it starts it is in the hypervisor's hands as the first is.
//!
//! Some boots (`run/cpu-unlisted`) hide it. Whatever the list says, it reads and writes no memory of the hypervisor's.
//! cpus: 2
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicBool, Ordering};

use guest::boot::hidden_memory;
use guest::cpu::under_hypervisor;
use guest::memory::{read64, write64};
use guest::{check, check_eq, guest, smp};

guest!(main);

static IS_UNDER_HYPERVISOR: AtomicBool = AtomicBool::new(false);
static READS: AtomicBool = AtomicBool::new(false);
static WRITES: AtomicBool = AtomicBool::new(false);

fn main() {
    check!(smp::start_others(1), "the second CPU starts");
    check!(smp::run_on(1, look), "it works");
    check_eq!(
        IS_UNDER_HYPERVISOR.load(Ordering::SeqCst),
        under_hypervisor(),
        "it sees the hypervisor where the first does"
    );
    if under_hypervisor() {
        check!(!READS.load(Ordering::SeqCst), "it reads nothing in hidden memory");
        check!(!WRITES.load(Ordering::SeqCst), "it writes nothing in hidden memory");
    }
}

fn look() {
    IS_UNDER_HYPERVISOR.store(under_hypervisor(), Ordering::SeqCst);
    // A word of the secure loader's image that nothing needs any more.
    let Some(place) = hidden_memory().map(|base| base + 0x38) else { return };
    let old = read64(place);
    READS.store(old.is_ok(), Ordering::SeqCst);
    WRITES.store(write64(place, old.unwrap_or(0)).is_ok(), Ordering::SeqCst);
}
