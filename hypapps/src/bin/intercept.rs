//! Intercepts ports, MSRs, interrupts, the interrupt window and nesting, and counts what it sees.
//!
//! Ports 0x1230 to 0x1237: IN reads the count of port accesses in the low byte; OUT is counted and dropped.
//! MSRs 0x1b0 and 0xc0001000: RDMSR reads the last value written to either, WRMSR keeps it from the hardware.
//! VMCALL with EBX = 0x494E5443: EAX = 1 watches for the next external interrupt, 2 for the next interrupt
//! window, on the calling CPU; returns in EAX how many of either were seen so far on any. EAX = 3 returns in
//! EAX how often a guest of the guest was entered, and in EDX how often one left for its hypervisor.
#![no_std]
#![no_main]

use core::ops::RangeInclusive;
use core::sync::atomic::{AtomicU64, Ordering};
use runtime::exit::PortAccess;
use runtime::hypapp::{Answer, Hypapp};
use runtime::services::{watch_external_interrupts, watch_interrupt_window};
use runtime::vcpu::Vcpu;
use x86::msr::Msr;

struct Intercept;

const SELECTOR: u64 = 0x494e_5443;
const PORTS: RangeInclusive<u16> = 0x1230..=0x1237;
const MSRS: [RangeInclusive<u32>; 2] = [0x1b0..=0x1b0, 0xc000_1000..=0xc000_1000];
static ACCESSES: AtomicU64 = AtomicU64::new(0);
static VALUE: AtomicU64 = AtomicU64::new(0);
static SEEN: AtomicU64 = AtomicU64::new(0);
static NESTED_ENTRIES: AtomicU64 = AtomicU64::new(0);
static NESTED_EXITS: AtomicU64 = AtomicU64::new(0);

impl Hypapp for Intercept {
    fn ports(&self) -> &[RangeInclusive<u16>] {
        &[PORTS]
    }

    fn msrs(&self) -> &[RangeInclusive<u32>] {
        &MSRS
    }

    fn port(&self, vcpu: &mut dyn Vcpu, access: PortAccess) -> Answer {
        if !PORTS.contains(&access.port) {
            return Answer::Chain;
        }
        let count = ACCESSES.fetch_add(1, Ordering::Relaxed) + 1;
        if access.is_input {
            let rax = vcpu.registers().rax();
            vcpu.registers_mut().set_rax(rax & !0xff | count & 0xff);
        }
        Answer::Handled
    }

    fn read_msr(&self, _vcpu: &mut dyn Vcpu, msr: Msr) -> Option<u64> {
        is_ours(msr).then(|| VALUE.load(Ordering::Relaxed))
    }

    fn write_msr(&self, _vcpu: &mut dyn Vcpu, msr: Msr, value: u64) -> Answer {
        if !is_ours(msr) {
            return Answer::Chain;
        }
        VALUE.store(value, Ordering::Relaxed);
        Answer::Handled
    }

    fn hypercall(&self, vcpu: &mut dyn Vcpu) -> Answer {
        if vcpu.registers().rbx() & 0xffff_ffff != SELECTOR {
            return Answer::Chain;
        }
        match vcpu.registers().rax() & 0xffff_ffff {
            1 => watch_external_interrupts(true),
            2 => watch_interrupt_window(true),
            3 => {
                vcpu.registers_mut().set_rax(NESTED_ENTRIES.load(Ordering::Relaxed));
                vcpu.registers_mut().set_rdx(NESTED_EXITS.load(Ordering::Relaxed));
                return Answer::Handled;
            }
            _ => {}
        }
        vcpu.registers_mut().set_rax(SEEN.load(Ordering::Relaxed));
        Answer::Handled
    }

    fn external_interrupt(&self, _vcpu: &mut dyn Vcpu) -> Answer {
        SEEN.fetch_add(1, Ordering::Relaxed);
        watch_external_interrupts(false);
        Answer::Handled
    }

    fn interrupt_window(&self, _vcpu: &mut dyn Vcpu) -> Answer {
        SEEN.fetch_add(1, Ordering::Relaxed);
        watch_interrupt_window(false);
        Answer::Handled
    }

    fn nested_entry(&self, _vcpu: &mut dyn Vcpu) {
        NESTED_ENTRIES.fetch_add(1, Ordering::Relaxed);
    }

    fn nested_exit(&self, _vcpu: &mut dyn Vcpu) {
        NESTED_EXITS.fetch_add(1, Ordering::Relaxed);
    }
}

fn is_ours(msr: Msr) -> bool {
    MSRS.iter().any(|range| range.contains(&msr.0))
}

runtime::hypapp!(Intercept);
