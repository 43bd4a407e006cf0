//! NMI/INIT/SIPI: a single step that is pending comes before an NMI that waits, and neither is lost: in a guest's guest.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use guest::trap::{Frame, handle};
use guest::vmx::nmi::{self, arrived, blocked, finish, send};
use guest::vmx::prelude::*;
use x86::vmx::controls::PinBasedControls;

guest!(main);

/// RFLAGS: bit 1 is always set, and the trap flag.
const STEPPING: u64 = 1 << 8 | 1 << 1;
const SINGLE_STEP: u64 = 1 << 14;

static STEPS: AtomicUsize = AtomicUsize::new(0);
static RIP: AtomicU64 = AtomicU64::new(0);

fn main() {
    nmi::initialise();
    handle(1, Some(stepped));
    enter_operation();
    blocked(step_first);
    finish();
    leave_operation();
}

/// #DB: stops stepping.
fn stepped(frame: &mut Frame) -> bool {
    STEPS.fetch_add(1, Ordering::SeqCst);
    RIP.store(frame.rip, Ordering::SeqCst);
    frame.rflags &= !(1 << 8);
    true
}

fn step_first() {
    let mut guest = nmi::guest(PinBasedControls::empty(), nothing);
    guest.write(vmcs::GUEST_RFLAGS, STEPPING);
    guest.write(vmcs::GUEST_PENDING_DEBUG_EXCEPTIONS, SINGLE_STEP);
    send();
    check_eq!(arrived(), (0, 0), "an NMI while blocked");
    check_eq!(guest.run(), ExitReason::VMCALL, "end");
    check_eq!(STEPS.load(Ordering::SeqCst), 1, "single steps");
    check_eq!(RIP.load(Ordering::SeqCst), nothing as *const () as u64, "its place");
    // In the handler of the single step, that is.
    check!(nmi::last_rip() != nothing as *const () as u64, "place of the NMI");
    check_eq!(arrived(), (0, 1), "NMIs in the end");
    check!(guest.has_ended(), "the end");
}

extern "C" fn nothing() {}
