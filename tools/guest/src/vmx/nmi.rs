//! NMIs that reach this guest or a guest of its own (SDM, "NMI Exiting and Virtual NMIs" and what it leads to).
//!
//! A CPU is blocked from the delivery of an NMI to the next IRET, so an experiment that needs a blocked
//! hypervisor runs within its NMI handler, see [`blocked`].

use core::mem::take;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use spin::Mutex;
use x86::vmx::controls::PinBasedControls;
use x86::vmx::interruption::{Interruption, InterruptionType};
use x86::vmx::vmcs;

use super::{ExitReason, Guest};
use crate::trap::{Frame, handle};
use crate::{apic, cpu, smp};

/// Bit of the interruptibility state: blocking by NMI.
pub const BLOCKING: u32 = 1 << 3;
/// An NMI that VM entry injects.
pub const INJECTED: u32 = Interruption::new(2, InterruptionType::NMI, false).0;
/// Ticks in which an NMI that can arrive does.
const WHILE: u64 = 50_000;

static IN_HYPERVISOR: AtomicUsize = AtomicUsize::new(0);
static IN_GUEST: AtomicUsize = AtomicUsize::new(0);
static LAST_RIP: AtomicU64 = AtomicU64::new(0);
static PLANS: Mutex<Plans> = Mutex::new(Plans { hypervisor: None, guest: None });

/// What the next NMI handler does before its IRET.
struct Plans {
    hypervisor: Option<fn()>,
    guest: Option<fn()>,
}

/// Takes vector 2 over.
pub fn initialise() {
    handle(2, Some(arrive));
}

/// A guest that runs `code`, with these controls for NMIs.
pub fn guest(controls: PinBasedControls, code: extern "C" fn()) -> Guest {
    let mut guest = Guest::new(code);
    assert!(guest.add_pin(controls), "the processor has no {controls:?}");
    forget();
    guest
}

/// Runs `experiment` in the hypervisor while it is blocked, and ends with everything unblocked.
pub fn blocked(experiment: fn()) {
    PLANS.lock().hypervisor = Some(experiment);
    send();
    finish();
}

/// Has the guest's next NMI handler run `code` before its IRET.
pub fn in_guest_handler(code: fn()) {
    PLANS.lock().guest = Some(code);
}

/// Sends an NMI to this CPU and gives it time to arrive.
pub fn send() {
    apic::nmi(apic::id());
    cpu::wait(WHILE);
}

/// Unblocks NMIs and gives one that waits time to arrive.
pub fn unblock() {
    cpu::iret();
    cpu::wait(WHILE);
}

/// Unblocks NMIs and forgets those that came.
pub fn finish() {
    unblock();
    unblock();
    forget();
}

/// NMIs that came to the hypervisor and to its guest.
pub fn arrived() -> (usize, usize) {
    (IN_HYPERVISOR.load(Ordering::SeqCst), IN_GUEST.load(Ordering::SeqCst))
}

/// Instruction that the last NMI came before.
pub fn last_rip() -> u64 {
    LAST_RIP.load(Ordering::SeqCst)
}

/// Whether the exit for `reason` is an NMI's.
pub fn is_nmi_exit(guest: &Guest, reason: ExitReason) -> bool {
    let event = Interruption(guest.read(vmcs::EXIT_INTERRUPTION_INFORMATION));
    reason == ExitReason::EXCEPTION_OR_NMI
        && event.is_valid()
        && event.kind() == InterruptionType::NMI
        && event.vector() == 2
}

/// Whether the VMCS says that its guest is blocked.
pub fn is_blocked(guest: &Guest) -> bool {
    guest.read(vmcs::GUEST_INTERRUPTIBILITY) & BLOCKING != 0
}

fn forget() {
    IN_HYPERVISOR.store(0, Ordering::SeqCst);
    IN_GUEST.store(0, Ordering::SeqCst);
    LAST_RIP.store(0, Ordering::SeqCst);
}

fn arrive(frame: &mut Frame) -> bool {
    LAST_RIP.store(frame.rip, Ordering::SeqCst);
    let is_nested = smp::is_nested_stack(frame.rsp);
    if is_nested { &IN_GUEST } else { &IN_HYPERVISOR }.fetch_add(1, Ordering::SeqCst);
    let plan = {
        let mut plans = PLANS.lock();
        take(if is_nested { &mut plans.guest } else { &mut plans.hypervisor })
    };
    if let Some(plan) = plan {
        // The NMI that brought it here is not one of the experiment's.
        if !is_nested {
            forget();
        }
        plan();
    }
    true
}
