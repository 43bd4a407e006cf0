//! NMI/INIT/SIPI: an NMI is injected into HLT and shutdown, with virtual NMIs and without.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicUsize, Ordering};

use guest::trap;
use guest::vmx::prelude::*;
use x86::vmx::controls::PinBasedControls;

guest!(main);

const NMI: u32 = 0x8000_0202;
static NMIS: AtomicUsize = AtomicUsize::new(0);

fn main() {
    trap::handle(
        2,
        Some(|_| {
            NMIS.fetch_add(1, Ordering::SeqCst);
            true
        }),
    );
    enter_operation();
    for controls in [
        PinBasedControls::empty(),
        PinBasedControls::NMI_EXITING,
        PinBasedControls::NMI_EXITING | PinBasedControls::VIRTUAL_NMIS,
    ] {
        for activity in [0, 1, 2] {
            NMIS.store(0, Ordering::SeqCst);
            let mut nested = Guest::new(nothing);
            check!(nested.add_pin(controls), "pin-based controls");
            nested.write(vmcs::GUEST_ACTIVITY, activity);
            nested.write(vmcs::ENTRY_INTERRUPTION_INFORMATION, NMI);
            let reason = nested.run();
            check!(nested.has_ended(), "{controls:?}, activity {activity}: exit {:#x}", reason.0);
            check_eq!(NMIS.load(Ordering::SeqCst), 1, "{controls:?}, activity {activity}: NMIs");
            nested.clear();
            guest::cpu::iret();
        }
    }
    leave_operation();
}

extern "C" fn nothing() {}
