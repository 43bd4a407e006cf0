//! NMI/INIT/SIPI: an NMI that waits beside a hypervisor's own monitor trap flag, and beside an injected MTF exit, comes
//! in the manual's order and is not lost.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU32, Ordering};

use guest::trap;
use guest::vmx::nmi;
use guest::vmx::prelude::*;
use x86::vmx::controls::{PinBasedControls, PrimaryControls};

guest!(main);

/// #UD, injected.
const EVENT: u32 = 0x8000_0306;
/// SDM, "Injection of Pending MTF VM Exits".
const PENDING_MTF: u32 = 1 << 31 | 7 << 8;

static CONTROLS: AtomicU32 = AtomicU32::new(0);

fn main() {
    enter_operation();
    nmi::initialise();
    trap::handle(6, Some(|_| true));
    let exiting = PinBasedControls::NMI_EXITING;
    for controls in [PinBasedControls::empty(), exiting, exiting | PinBasedControls::VIRTUAL_NMIS] {
        CONTROLS.store(controls.bits(), Ordering::SeqCst);
        for experiment in [behind_an_event, behind_an_injected_trap, before_the_first_instruction] {
            nmi::blocked(experiment);
        }
    }
    leave_operation();
}

fn controls() -> PinBasedControls {
    PinBasedControls::from_bits_retain(CONTROLS.load(Ordering::SeqCst))
}

/// A guest whose blocking by NMI ends at the entry, and an NMI that waits for that.
fn begin(has_trap: bool, event: u32) -> Guest {
    let mut nested = Guest::new(nothing);
    check!(nested.add_pin(controls()), "pin-based controls");
    if has_trap {
        check!(
            nested.add_primary(PrimaryControls::MONITOR_TRAP_FLAG),
            "the processor has no monitor trap flag"
        );
    }
    nested.write(vmcs::ENTRY_INTERRUPTION_INFORMATION, event);
    nmi::send();
    check_eq!(nmi::arrived(), (0, 0), "it waits");
    nested
}

/// The trap follows the delivery, and the NMI the trap.
fn behind_an_event() {
    let mut nested = begin(true, EVENT);
    let start = nested.read(vmcs::GUEST_RIP);
    check_eq!(nested.run(), ExitReason::MONITOR_TRAP_FLAG, "{:?}: behind the event", controls());
    check!(nested.read(vmcs::GUEST_RIP) != start, "{:?}: the event was delivered", controls());
    nmi::unblock();
    check_eq!(nmi::arrived(), (1, 0), "{:?}: the NMI behind the trap", controls());
    nested.clear();
}

/// The injected exit comes before the NMI.
fn behind_an_injected_trap() {
    let mut nested = begin(false, PENDING_MTF);
    let start = nested.read(vmcs::GUEST_RIP);
    check_eq!(nested.run(), ExitReason::MONITOR_TRAP_FLAG, "{:?}: injected exit", controls());
    check_eq!(nested.read(vmcs::GUEST_RIP), start, "{:?}: its place", controls());
    nmi::unblock();
    check_eq!(nmi::arrived(), (1, 0), "{:?}: the NMI behind the injected exit", controls());
    nested.clear();
}

/// The NMI comes before the first instruction: to the guest, with the trap behind it, or to the hypervisor.
fn before_the_first_instruction() {
    let mut nested = begin(true, 0);
    let start = nested.read(vmcs::GUEST_RIP);
    let reason = nested.run();
    if controls().is_empty() {
        check_eq!(reason, ExitReason::MONITOR_TRAP_FLAG, "the NMI is the guest's, and the trap follows");
        check!(nested.read(vmcs::GUEST_RIP) != start && nmi::is_blocked(&nested), "in the handler");
    } else {
        check!(nmi::is_nmi_exit(&nested, reason), "{:?}: an NMI's exit: {}", controls(), reason.name());
        check_eq!(nested.read(vmcs::GUEST_RIP), start, "{:?}: its place", controls());
    }
    nested.clear();
}

extern "C" fn nothing() {}
