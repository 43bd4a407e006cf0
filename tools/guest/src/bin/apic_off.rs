//! The local APIC is switched off, as systems without a use for it do; interrupts come as on a PC/AT. Then it is on again.
//!
//! Beside it another CPU changes memory types, for which each CPU has to leave its guest.
//! cpus: 2
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use guest::cpu::{cpuid, out8, rdmsr, rdmsr_existing, under_hypervisor, wait_until, wrmsr, wrmsr_existing};
use guest::trap::{Frame, handle};
use guest::{Fault, Mode, Regs, apic, check, check_eq, guest, run, smp, snippet};
use x86::msr::Msr;

guest!(main);

const ENABLE: u64 = 1 << 11;
const X2APIC: u64 = 1 << 10;
const TIMER: u8 = 0x68;
static TICKS: AtomicUsize = AtomicUsize::new(0);
static CHANGES: AtomicUsize = AtomicUsize::new(0);
static STOPS: AtomicBool = AtomicBool::new(false);

fn main() {
    check!(smp::start_others(1), "the other CPU starts");
    smp::begin_on(1, change_types);
    let base = rdmsr_existing(Msr::IA32_APIC_BASE);
    check_eq!(wrmsr(Msr::IA32_APIC_BASE, base & !ENABLE), Ok(()), "the local APIC is switched off");
    check_eq!(rdmsr(Msr::IA32_APIC_BASE), Ok(base & !ENABLE), "IA32_APIC_BASE");
    check_eq!(cpuid(1, 0).edx >> 9 & 1, 0, "CPUID's APIC bit");
    check!(timer_ticks(), "timer interrupts by the 8259");
    let before = CHANGES.load(Ordering::SeqCst);
    let goes_on = wait_until(smp::PATIENCE, || CHANGES.load(Ordering::SeqCst) > before + 2);
    check!(goes_on, "another CPU finds this one by its local APIC");
    if under_hypervisor() {
        // Bochs takes x2APIC mode from here, which no processor does, and does not take xAPIC mode.
        on_again(base);
    }
    STOPS.store(true, Ordering::SeqCst);
}

fn on_again(base: u64) {
    check_eq!(wrmsr(Msr::IA32_APIC_BASE, base | X2APIC), Err(Fault::GP), "from off to x2APIC mode");
    check_eq!(wrmsr(Msr::IA32_APIC_BASE, base), Ok(()), "the local APIC is switched on");
    check_eq!(rdmsr(Msr::IA32_APIC_BASE), Ok(base), "IA32_APIC_BASE");
    check_eq!(cpuid(1, 0).edx >> 9 & 1, 1, "CPUID's APIC bit");
    check_eq!(apic::read(apic::register::SPURIOUS), 0xff, "the spurious-interrupt register after a reset");
    check_eq!(apic::read(apic::register::LVT_LINT0), 1 << 16, "LINT0 after a reset");
    check_eq!(apic::id(), 0, "the local APIC ID");
}

/// Both controllers to vectors from `TIMER` on, everything masked but the timer's line: it comes again and again.
fn timer_ticks() -> bool {
    for (port, value) in [
        (0x20, 0x11),
        (0xa0, 0x11),
        (0x21, TIMER),
        (0xa1, TIMER + 8),
        (0x21, 4),
        (0xa1, 2),
        (0x21, 1),
        (0xa1, 1),
        (0x21, 0xfe),
        (0xa1, 0xff),
        (0x43, 0x34),
        (0x40, 0),
        (0x40, 0x10),
    ] {
        out8(port, value);
    }
    handle(TIMER, Some(tick));
    let ticks = wait_until(smp::PATIENCE, || {
        let _ = run(Mode::Kernel64, snippet!("sti", "nop", "nop", "cli"), &mut Regs::default());
        TICKS.load(Ordering::SeqCst) > 2
    });
    out8(0x21, 0xff);
    ticks
}

fn tick(_: &mut Frame) -> bool {
    TICKS.fetch_add(1, Ordering::SeqCst);
    out8(0x20, 0x20);
    true
}

fn change_types() {
    while !STOPS.load(Ordering::SeqCst) {
        wrmsr_existing(Msr(0x20f), 0xf_f000_0800);
        wrmsr_existing(Msr(0x20f), 0);
        CHANGES.fetch_add(1, Ordering::SeqCst);
    }
}
