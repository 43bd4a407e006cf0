//! INIT and start-up storm: whatever order and number they come in, the other CPU starts when it is told.
//! cpus: 2
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicUsize, Ordering};

use guest::cpu::{cpuid, halt, pause, rdmsr, under_hypervisor, wait, wait_until};
use guest::{apic, check, check_eq, guest, smp, trap};
use x86::msr::Msr;

guest!(main);

static LOOPS: AtomicUsize = AtomicUsize::new(0);

fn main() {
    trap::handle(2, Some(|_| true));
    check!(smp::start_others(1), "first start");
    let target = smp::apic_id(1);
    let vector = smp::startup_vector();
    let jobs: [fn(); 4] = [spin, leave_often, halt_for_ever, fault_often];
    for (round, job) in (0..200_u64).zip(jobs.into_iter().cycle()) {
        smp::begin_on(1, job);
        wait(round % 7 * 500);
        for _ in 0..round % 4 {
            apic::init(target);
            wait(round % 3 * 100);
        }
        if round % 5 == 0 {
            apic::startup(target, vector);
            wait(round % 11 * 300);
        }
        if round % 13 == 0 {
            // Whether a CPU that waits for a start-up IPI keeps an NMI or not: it starts all the same.
            apic::init(target);
            apic::nmi(target);
        }
        if !check!(start_again(target, vector), "start in round {round}") {
            return;
        }
    }
    for _ in 0..500 {
        apic::init(target);
    }
    check!(start_again(target, vector), "start after 500 INITs");
    check!(LOOPS.load(Ordering::SeqCst) > 0, "the other CPU worked in between");
    check!(smp::run_on(1, one_loop), "the other CPU works at the end");
    check_eq!(smp::apic_id(1), target, "it is the same CPU");
}

/// An INIT that reaches a CPU while it is in VMX root operation waits there by the SDM ("Other Causes of VM
/// Exits"), but is lost in Bochs: under the hypervisor it is sent until it has struck.
fn start_again(target: u32, vector: u8) -> bool {
    let attempts = if under_hypervisor() { 1000 } else { 1 };
    (0..attempts).any(|attempt| {
        apic::init(target);
        // Not in step with the other CPU's loop, of whose instructions those that would take INIT are a few in a hundred:
        // the emulator's CPUs go on by turns, so it takes an odd number of instructions here to come out of step.
        wait(20_000 + attempt * 13);
        (0..attempt % 31).for_each(|_| pause());
        smp::forget_arrivals();
        apic::startup(target, vector);
        apic::startup(target, vector);
        wait_until(smp::PATIENCE / attempts, || smp::is_ready(1)) && smp::arrived() == 2
    })
}

fn one_loop() {
    LOOPS.fetch_add(1, Ordering::SeqCst);
}

fn spin() {
    loop {
        one_loop();
    }
}

fn leave_often() {
    loop {
        one_loop();
        let _ = cpuid(0, 0);
    }
}

fn fault_often() {
    loop {
        one_loop();
        let _ = rdmsr(Msr(0x1234));
    }
}

fn halt_for_ever() {
    one_loop();
    halt();
}
