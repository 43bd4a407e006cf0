//! How soon behind INIT a start-up IPI is taken: at once by a bare processor, within microseconds under the hypervisor.
//!
//! Linux sends its first start-up IPI as soon as INIT has left, and the second 10 us later.
//! The emulator has one clock, which counts for all CPUs: with more of them the gaps are shorter for each.
//! cpus: exactly 2
#![no_std]
#![no_main]

use guest::cpu::{rdmsr_existing, rdtsc, under_hypervisor, wait, wait_until, wrmsr_existing};
use guest::{apic, check, check_eq, guest, println, smp};
use x86::msr::Msr;

guest!(main);

const X2APIC: u64 = 1 << 10;
const INIT: u64 = 0x4500;
const STARTUP: u64 = 0x4600;
const ROUNDS: u32 = 8;
const GAPS: [u64; 8] = [0, 100, 200, 300, 400, 600, 800, 1600];
/// Ticks from INIT behind which no start-up IPI is lost under the hypervisor: an exit, and an entry.
const LEAST: u64 = 400;

fn main() {
    check!(smp::start_others(1), "first start");
    let base = rdmsr_existing(Msr::IA32_APIC_BASE);
    wrmsr_existing(Msr::IA32_APIC_BASE, base | X2APIC);
    for gap in GAPS {
        let taken: u32 = (0..ROUNDS).map(|_| u32::from(is_taken(gap))).sum();
        println!("{gap} ticks behind INIT {taken} of {ROUNDS} start-up IPIs are taken");
        if gap >= LEAST || !under_hypervisor() {
            check_eq!(taken, ROUNDS, "start-up IPIs taken {gap} ticks behind INIT");
        }
    }
}

/// Whether a start-up IPI `gap` ticks behind INIT starts the CPU. It runs in any case afterwards.
fn is_taken(gap: u64) -> bool {
    let target = smp::apic_id(1);
    let before = smp::arrivals(1);
    // What it does on its way here leaves the guest, and Bochs loses an INIT that comes then.
    wait(100_000);
    smp::forget_arrivals();
    let start = rdtsc();
    command(target, INIT);
    while rdtsc().wrapping_sub(start) < gap {}
    command(target, STARTUP | u64::from(smp::startup_vector()));
    let is_up = || smp::arrivals(1) != before && smp::is_ready(1);
    let is_taken = wait_until(1_000_000, is_up);
    if !is_taken {
        apic::init(target);
        wait(100_000);
        smp::forget_arrivals();
        apic::startup(target, smp::startup_vector());
        check!(wait_until(smp::PATIENCE, is_up), "a start-up IPI that is not hurried starts it");
    }
    is_taken
}

/// An interrupt command by one instruction, which does not leave the guest.
fn command(target: u32, command: u64) {
    wrmsr_existing(Msr::X2APIC_ICR, u64::from(target) << 32 | command);
}
