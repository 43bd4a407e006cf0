//! The end of the guest meets CPUs that never leave it by themselves, leave it all the time, or wait to start.
//! cpus: exactly 4
//! resets: yes
//! hypapp: stop
//! expect-hypervisor: cpu 0 comes to its end
//! expect-hypervisor: cpu 1 comes to its end
//! expect-hypervisor: cpu 2 comes to its end
//! expect-hypervisor: cpu 3 comes to its end
//! expect-hypervisor: 3 of 3 other CPUs stopped
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU32, Ordering};
use guest::cpu::{cpuid, out8, wait_until};
use guest::{apic, check, guest, reset, smp};

guest!(main);

static WRITES: AtomicU32 = AtomicU32::new(0);
static EXITS: AtomicU32 = AtomicU32::new(0);

fn main() {
    reset::expect(|| {
        check!(smp::start_each(3), "start of the others");
        smp::begin_on(1, write);
        smp::begin_on(2, exit);
        apic::init(smp::apic_id(3));
        let both = || WRITES.load(Ordering::SeqCst) > 2 && EXITS.load(Ordering::SeqCst) > 2;
        check!(wait_until(smp::PATIENCE, both), "both others work");
        out8(0xcf9, 2);
        out8(0xcf9, 6);
    });
}

/// Never leaves the guest by itself.
fn write() {
    loop {
        WRITES.fetch_add(1, Ordering::SeqCst);
    }
}

/// Leaves it all the time.
fn exit() {
    loop {
        let _ = cpuid(0, 0);
        EXITS.fetch_add(1, Ordering::SeqCst);
    }
}
