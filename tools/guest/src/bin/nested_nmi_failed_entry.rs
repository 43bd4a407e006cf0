//! NMI/INIT/SIPI: an NMI that waits for a hypervisor survives an entry that fails for its guest's state.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU32, Ordering};

use guest::vmx::nmi;
use guest::vmx::prelude::*;
use x86::vmx::controls::PinBasedControls;

guest!(main);

static CONTROLS: AtomicU32 = AtomicU32::new(0);
static BLOCKED: AtomicU32 = AtomicU32::new(0);

fn main() {
    enter_operation();
    nmi::initialise();
    for controls in [PinBasedControls::empty(), PinBasedControls::NMI_EXITING] {
        for blocked in [0, nmi::BLOCKING] {
            CONTROLS.store(controls.bits(), Ordering::SeqCst);
            BLOCKED.store(blocked, Ordering::SeqCst);
            nmi::blocked(experiment);
        }
    }
    leave_operation();
}

/// Runs while NMIs are blocked.
fn experiment() {
    let (controls, blocked) = (CONTROLS.load(Ordering::SeqCst), BLOCKED.load(Ordering::SeqCst));
    let mut nested = Guest::new(nothing);
    check!(nested.add_pin(PinBasedControls::from_bits_retain(controls)), "pin-based controls");
    nested.write(vmcs::GUEST_INTERRUPTIBILITY, nmi::BLOCKING);
    let _ = nested.run();
    check!(nested.has_ended(), "the first entry");
    nested.call(nothing);
    // One waits for the end of the handler.
    nmi::send();
    check_eq!(nmi::arrived(), (0, 0), "it waits");
    // What the processor refuses.
    nested.write(vmcs::GUEST_INTERRUPTIBILITY, 1 << 20 | blocked);
    let reason = nested.run();
    check_eq!(reason.0, 0x8000_0021, "controls {controls:#x}, blocked {blocked}: the entry fails");
    nested.clear();
    nmi::unblock();
    check_eq!(
        nmi::arrived(),
        (1, 0),
        "controls {controls:#x}, blocked {blocked}: the NMI is there behind the handler"
    );
}

extern "C" fn nothing() {}
