//! Eight processors: each starts, works beside all others, takes its interrupts, and starts again.
//! cpus: exactly 8
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU32, Ordering};
use guest::cpu::{cpuid, wait_until};
use guest::trap::{Frame, handle};
use guest::{acpi, apic, check, check_eq, guest, smp};

guest!(main);

const OTHERS: u32 = 7;
static WORK: AtomicU32 = AtomicU32::new(0);
static NMIS: AtomicU32 = AtomicU32::new(0);

fn main() {
    handle(2, Some(count));
    check_eq!(acpi::processors(), OTHERS + 1, "processors that the MADT lists");
    for round in 1..=2 {
        check!(smp::start_each(OTHERS), "start of all others, round {round}");
        WORK.store(0, Ordering::SeqCst);
        NMIS.store(0, Ordering::SeqCst);
        (1..=OTHERS).for_each(|number| smp::begin_on(number as usize, work));
        (1..=OTHERS).for_each(|number| apic::nmi(smp::apic_id(number as usize)));
        let is_over = || (1..=OTHERS).all(|number| smp::is_ready(number as usize));
        check!(wait_until(smp::PATIENCE, is_over), "all others end their work, round {round}");
        check_eq!(WORK.load(Ordering::SeqCst), OTHERS, "work done in round {round}");
        let taken = wait_until(smp::PATIENCE, || NMIS.load(Ordering::SeqCst) == OTHERS);
        check!(taken, "each other took its NMI, round {round}");
    }
}

/// Leaves the guest often.
fn work() {
    for _ in 0..100 {
        let _ = cpuid(0, 0);
    }
    WORK.fetch_add(1, Ordering::SeqCst);
}

fn count(_: &mut Frame) -> bool {
    NMIS.fetch_add(1, Ordering::SeqCst);
    true
}
