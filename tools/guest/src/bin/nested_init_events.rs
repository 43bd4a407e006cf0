//! NMI/INIT/SIPI: INIT that waited for an entry comes behind an event that the entry injects, before an injected MTF
//! exit, and not while the guest waits for a start-up IPI. The emulator itself loses an INIT in VMX
//! root operation.
//! cpus: 2
//! bare: no
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use guest::cpu::{pause, wait, wait_until};
use guest::vmx::prelude::*;
use guest::vmx::read;
use guest::{apic, smp, trap};

guest!(main);

/// #UD, injected.
const EVENT: u32 = 0x8000_0306;
/// SDM, "Injection of Pending MTF VM Exits".
const PENDING_MTF: u32 = 1 << 31 | 7 << 8;
const WAIT_FOR_SIPI: u32 = 3;
/// Ticks in which a signal that can arrive does.
const WHILE: u64 = 300_000;

static PHASE: AtomicU32 = AtomicU32::new(0);
static GO: AtomicBool = AtomicBool::new(false);

fn main() {
    check!(smp::start_others(1), "two CPUs");
    trap::handle(6, Some(|_| true));
    for job in [with_an_event as fn(), with_an_injected_trap] {
        begin(job);
        check!(wait_until(smp::PATIENCE, || smp::is_ready(1)), "the other CPU ends");
    }
    begin(waiting);
    check!(!wait_until(2_000_000, || PHASE.load(Ordering::SeqCst) == 2), "an exit without a start-up IPI");
    apic::startup(smp::apic_id(1), 0x9a);
    check!(wait_until(smp::PATIENCE, || smp::is_ready(1)), "the other CPU ends");
}

/// Has the other CPU take `job` to where it is to enter, with an INIT that waits.
fn begin(job: fn()) {
    PHASE.store(0, Ordering::SeqCst);
    GO.store(false, Ordering::SeqCst);
    smp::begin_on(1, job);
    check!(wait_until(smp::PATIENCE, || PHASE.load(Ordering::SeqCst) == 1), "in root operation");
    apic::init(smp::apic_id(1));
    wait(WHILE);
    GO.store(true, Ordering::SeqCst);
}

/// A guest that is ready, while INIT waits.
fn prepare(event: u32) -> Guest {
    enter_operation();
    let mut nested = Guest::new(nothing);
    nested.write(vmcs::ENTRY_INTERRUPTION_INFORMATION, event);
    PHASE.store(1, Ordering::SeqCst);
    while !GO.load(Ordering::SeqCst) {
        pause();
    }
    nested
}

fn end(mut nested: Guest) {
    nested.clear();
    leave_operation();
}

fn with_an_event() {
    let mut nested = prepare(EVENT);
    let gate = read(nested.read(vmcs::GUEST_IDTR_BASE) + 16 * 6);
    check_eq!(nested.run(), ExitReason::INIT, "INIT behind an event");
    let handler = gate & 0xffff | gate >> 32 & 0xffff_0000;
    check_eq!(
        nested.read(vmcs::GUEST_RIP) & 0xffff_ffff,
        handler,
        "the first instruction of the event's handler"
    );
    check_eq!(nested.read(vmcs::IDT_VECTORING_INFORMATION) >> 31, 0, "INIT interrupts no delivery");
    check_eq!(nested.read(vmcs::ENTRY_INTERRUPTION_INFORMATION) >> 31, 0, "the event is not injected again");
    end(nested);
}

fn with_an_injected_trap() {
    let mut nested = prepare(PENDING_MTF);
    let start = nested.read(vmcs::GUEST_RIP);
    check_eq!(nested.run(), ExitReason::INIT, "INIT before an injected MTF exit");
    check_eq!(nested.read(vmcs::GUEST_RIP), start, "its place");
    check_eq!(nested.read(vmcs::IDT_VECTORING_INFORMATION) >> 31, 0, "nothing was being delivered");
    end(nested);
}

fn waiting() {
    let mut nested = prepare(0);
    nested.write(vmcs::GUEST_ACTIVITY, WAIT_FOR_SIPI);
    let reason = nested.run();
    PHASE.store(2, Ordering::SeqCst);
    check_eq!(reason, ExitReason::STARTUP_IPI, "the start-up IPI");
    nested.write(vmcs::GUEST_ACTIVITY, 0);
    check_eq!(nested.run(), ExitReason::INIT, "INIT goes on waiting, and comes with the next entry");
    end(nested);
}

extern "C" fn nothing() {}
