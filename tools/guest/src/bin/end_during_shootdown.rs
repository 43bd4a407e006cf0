//! The end of the guest on one CPU meets shootdowns on the others, each of which waits for that CPU.
//! cpus: exactly 3
//! resets: yes
//! expect-hypervisor: 2 of 2 other CPUs stopped
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU32, Ordering};
use guest::cpu::{out8, rdmsr_existing, wait_until, wrmsr_existing};
use guest::{check, guest, reset, smp};
use x86::msr::Msr;

guest!(main);

const BASE: Msr = Msr(0x20e);
const MASK: Msr = Msr(0x20f);
static CHANGES: AtomicU32 = AtomicU32::new(0);

fn main() {
    reset::expect(|| {
        check!(smp::start_each(2), "start of the others");
        smp::begin_on(1, change_types);
        smp::begin_on(2, change_types);
        check!(wait_until(smp::PATIENCE, || CHANGES.load(Ordering::SeqCst) > 20), "both others work");
        out8(0xcf9, 2);
        out8(0xcf9, 6);
    });
}

/// Changes memory types, for which all CPUs have to drop their translations.
fn change_types() {
    let mask = rdmsr_existing(MASK);
    wrmsr_existing(BASE, 0x2000_0006);
    loop {
        wrmsr_existing(MASK, mask | 1 << 11 | 0xf_f000_0000);
        wrmsr_existing(MASK, 0);
        CHANGES.fetch_add(1, Ordering::SeqCst);
    }
}
