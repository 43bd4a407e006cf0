//! NMI/INIT/SIPI: an NMI that waits where an entry leads to waiting for a start-up IPI goes on waiting.
//! cpus: 2
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use guest::cpu::{pause, wait, wait_until};
use guest::vmx::nmi;
use guest::vmx::prelude::*;
use guest::{apic, smp};
use x86::vmx::controls::PinBasedControls;

guest!(main);

static CONTROLS: AtomicU32 = AtomicU32::new(0);
static PHASE: AtomicU32 = AtomicU32::new(0);
static GO: AtomicBool = AtomicBool::new(false);
static REASON: AtomicU32 = AtomicU32::new(0);

fn main() {
    check!(smp::start_others(1), "two CPUs");
    for controls in [0, 1 << 3, 1 << 3 | 1 << 5] {
        CONTROLS.store(controls, Ordering::SeqCst);
        PHASE.store(0, Ordering::SeqCst);
        GO.store(false, Ordering::SeqCst);
        smp::begin_on(1, other);
        check!(wait_until(smp::PATIENCE, || PHASE.load(Ordering::SeqCst) == 1), "in root operation");
        apic::nmi(smp::apic_id(1));
        wait(300_000);
        GO.store(true, Ordering::SeqCst);
        let gone_on = wait_until(2_000_000, || PHASE.load(Ordering::SeqCst) == 2);
        check!(
            !gone_on,
            "controls {controls:#x}: exit {:#x} without a start-up IPI",
            REASON.load(Ordering::SeqCst)
        );
        apic::startup(smp::apic_id(1), 0x9a);
        check!(wait_until(smp::PATIENCE, || smp::is_ready(1)), "the other CPU ends");
        check_eq!(REASON.load(Ordering::SeqCst), 4, "controls {controls:#x}: the exit");
    }
}

fn other() {
    enter_operation();
    nmi::initialise();
    nmi::blocked(experiment);
    leave_operation();
}

fn experiment() {
    let mut nested = Guest::new(nothing);
    let controls = PinBasedControls::from_bits_retain(CONTROLS.load(Ordering::SeqCst));
    check!(nested.add_pin(controls), "pin-based controls");
    nested.write(vmcs::GUEST_ACTIVITY, 3);
    PHASE.store(1, Ordering::SeqCst);
    while !GO.load(Ordering::SeqCst) {
        pause();
    }
    REASON.store(nested.run().0, Ordering::SeqCst);
    PHASE.store(2, Ordering::SeqCst);
    nested.clear();
}

extern "C" fn nothing() {}
