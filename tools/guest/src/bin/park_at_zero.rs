//! INIT reaches a started CPU that stands at offset 0 of its start-up page, as systems park a CPU there.
//!
//! INIT that came before the start-up IPI has had its effect; INIT that comes after the first instruction has not.
//! cpus: 2
#![no_std]
#![no_main]

use guest::cpu::{wait, wait_until};
use guest::memory::{read64, write64};
use guest::{apic, check, check_eq, guest, smp};

guest!(main);

/// Free memory below 1 MiB.
const VECTOR: u8 = 0x90;
const PAGE: u64 = (VECTOR as u64) << 12;
/// `jmp .`, and `lock inc word [cs:8]; jmp 0`.
const PARKED: u64 = 0xfeeb;
const COUNTING: u64 = 0xf8eb_0008_06ff_2ef0;
const COUNT: u64 = PAGE + 8;

fn main() {
    check!(smp::start_others(1), "first start");
    for round in 0..4 {
        check!(
            is_restarted_from(PARKED),
            "round {round}: INIT reaches a CPU that jumps to itself at offset 0"
        );
        check!(is_restarted_from(COUNTING), "round {round}: INIT reaches a CPU that counts at offset 0");
    }
    init_before_the_start();
}

/// Whether INIT and a start-up IPI take the CPU out of `code` at offset 0.
fn is_restarted_from(code: u64) -> bool {
    let target = smp::apic_id(1);
    place(code);
    apic::init(target);
    wait(200_000);
    apic::startup(target, VECTOR);
    wait(200_000);
    smp::forget_arrivals();
    apic::init(target);
    wait(200_000);
    apic::startup(target, smp::startup_vector());
    wait_until(2_000_000, || smp::is_ready(1) && smp::arrived() == 2)
}

/// Of two INITs before a start-up IPI the second is without effect: the CPU runs from then on.
fn init_before_the_start() {
    let target = smp::apic_id(1);
    place(COUNTING);
    apic::init(target);
    wait(200_000);
    apic::init(target);
    wait(200_000);
    apic::startup(target, VECTOR);
    check!(wait_until(2_000_000, || read64(COUNT) != Ok(0)), "a CPU that was sent INIT twice starts");
    apic::init(target);
    wait(200_000);
    let stopped = read64(COUNT);
    wait(200_000);
    check_eq!(read64(COUNT), stopped, "its count, once it was sent INIT");
}

fn place(code: u64) {
    check_eq!(write64(PAGE, code), Ok(()), "the start-up page");
    check_eq!(write64(COUNT, 0), Ok(()), "the count");
}
