//! NMI/INIT/SIPI: an injected MTF exit comes whatever the monitor trap flag says, and brings no NMI.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicUsize, Ordering};

use guest::trap;
use guest::vmx::prelude::*;
use x86::vmx::controls::PinBasedControls;

guest!(main);

/// SDM, "Injection of Pending MTF VM Exits".
const PENDING_MTF: u32 = 1 << 31 | 7 << 8;

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
        let mut nested = Guest::new(nothing);
        check!(nested.add_pin(controls), "pin-based controls");
        let rip = nested.read(vmcs::GUEST_RIP);
        nested.write(vmcs::ENTRY_INTERRUPTION_INFORMATION, PENDING_MTF);
        let reason = nested.run();
        check_eq!(reason, ExitReason::MONITOR_TRAP_FLAG, "{controls:?}: the exit that was injected");
        check_eq!(nested.read(vmcs::GUEST_RIP), rip, "{controls:?}: before the first instruction");
        check_eq!(NMIS.load(Ordering::SeqCst), 0, "{controls:?}: NMIs");
        nested.clear();
    }
    leave_operation();
}

extern "C" fn nothing() {}
