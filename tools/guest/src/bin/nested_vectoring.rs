//! Stale state: an exit in whose stead the processor does not enter tells nothing of what an earlier exit interrupted;
//! and an exit that interrupts an event tells of the one that was injected.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};

use guest::vmx::prelude::*;
use guest::vmx::{Ept, allocate, instruction, nmi};
use x86::vmx::controls::PinBasedControls;

guest!(main);

/// #UD, injected.
const EVENT: u32 = 0x8000_0306;
/// An exception with the vector of NMIs, which a VM entry may inject.
const LIKE_NMI: u32 = 0x8000_0302;

static SEEN: AtomicU64 = AtomicU64::new(0);

fn main() {
    enter_operation();
    nmi::initialise();
    nmi::blocked(same_guest);
    nmi::blocked(another_guest);
    for event in [LIKE_NMI, nmi::INJECTED] {
        let mut ept = Ept::identity();
        fault(&mut ept, event).clear();
    }
    leave_operation();
}

/// Leaves a guest at a delivery that its tables do not serve, and gives it.
fn fault(ept: &mut Ept, event: u32) -> Guest {
    let mut nested = Guest::new(nothing);
    check!(nested.add_pin(PinBasedControls::NMI_EXITING), "pin-based controls");
    nested.use_ept(ept);
    let table = nested.read(vmcs::GUEST_IDTR_BASE) & !0xfff;
    ept.unmap(table);
    check_eq!(instruction::invept(2, [0, 0]), Ok(()), "INVEPT");
    nested.write(vmcs::ENTRY_INTERRUPTION_INFORMATION, event);
    // Blocked in the guest, and so behind the exit.
    nested.write(vmcs::GUEST_INTERRUPTIBILITY, nmi::BLOCKING);
    check_eq!(nested.run(), ExitReason::EPT_VIOLATION, "the delivery");
    check_eq!(nested.read(vmcs::IDT_VECTORING_INFORMATION), event, "what was being delivered");
    ept.map(table, table, 7);
    check_eq!(instruction::invept(2, [0, 0]), Ok(()), "INVEPT");
    nested
}

fn same_guest() {
    let mut ept = Ept::identity();
    let mut nested = fault(&mut ept, EVENT);
    // The event was this hypervisor's own, which has given it up. An NMI waits.
    nested.call(nothing);
    nested.write(vmcs::GUEST_INTERRUPTIBILITY, 0);
    nmi::send();
    check_eq!(nmi::arrived(), (0, 0), "it waits");
    let reason = nested.run();
    check!(nmi::is_nmi_exit(&nested, reason), "an NMI's exit: {}", reason.name());
    let vectoring = nested.read(vmcs::IDT_VECTORING_INFORMATION);
    check_eq!(vectoring >> 31, 0, "the same guest: event that the NMI interrupted: {vectoring:#x}");
    nested.clear();
}

/// The other guest on this CPU never had an event.
fn another_guest() {
    let mut ept = Ept::identity();
    let first = fault(&mut ept, EVENT);
    let mut second = Guest::at(guest::vmx::region(), nothing);
    check!(second.add_pin(PinBasedControls::NMI_EXITING), "pin-based controls");
    second.write(vmcs::MSR_BITMAPS, allocate());
    nmi::send();
    check_eq!(nmi::arrived(), (0, 0), "it waits");
    let reason = second.run();
    check!(nmi::is_nmi_exit(&second, reason), "an NMI's exit: {}", reason.name());
    let vectoring = second.read(vmcs::IDT_VECTORING_INFORMATION);
    check_eq!(vectoring >> 31, 0, "another guest: event that the NMI interrupted: {vectoring:#x}");
    SEEN.store(first.region, Ordering::SeqCst);
    second.clear();
}

extern "C" fn nothing() {}
