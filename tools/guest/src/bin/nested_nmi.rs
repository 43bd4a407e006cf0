//! NMI/INIT/SIPI: NMIs of a hypervisor whose guest has neither NMI exiting nor virtual NMIs: one blocking for both.
#![no_std]
#![no_main]

use guest::cpu::{iret, vmcall};
use guest::trap::{entry, handle};
use guest::vmx::nmi::{
    self, BLOCKING, INJECTED, arrived, blocked, finish, in_guest_handler, last_rip, send, unblock,
};
use guest::vmx::prelude::*;
use x86::vmx::controls::PinBasedControls;
use x86::vmx::interruption::{Interruption, InterruptionType};

guest!(main);

const KEYBOARD: u8 = 0x21;

fn main() {
    nmi::initialise();
    enter_operation();
    let experiments: [fn(); 6] =
        [to_guest, latched, blocked_guest, injected, one_deep, one_deep_in_hypervisor];
    for experiment in experiments {
        experiment();
        finish();
    }
    blocked(pending_for_guest);
    blocked(pending_and_interrupt);
    leave_operation();
}

fn nested(code: extern "C" fn()) -> Guest {
    nmi::guest(PinBasedControls::empty(), code)
}

/// 1: an NMI while the guest runs is its own.
fn to_guest() {
    let mut guest = nested(send_one);
    check_eq!(guest.run(), ExitReason::VMCALL, "experiment 1: end");
    check_eq!(arrived(), (0, 1), "experiment 1: an NMI in the guest");
}

/// 2: one that the blocked guest gets stays latched in the hypervisor, up to its IRET.
fn latched() {
    let mut guest = nested(send_one);
    guest.write(vmcs::GUEST_INTERRUPTIBILITY, BLOCKING);
    check_eq!(guest.run(), ExitReason::VMCALL, "experiment 2: end");
    guest::cpu::wait(50_000);
    check_eq!(arrived(), (0, 0), "experiment 2: an NMI while both are blocked");
    unblock();
    check_eq!(arrived(), (1, 0), "experiment 2: after IRET");
}

/// 3: one that the blocked hypervisor gets is the guest's, which is not blocked.
fn pending_for_guest() {
    let mut guest = nested(nothing);
    send();
    check_eq!(arrived(), (0, 0), "experiment 3: an NMI while blocked");
    check_eq!(guest.run(), ExitReason::VMCALL, "experiment 3: end");
    check_eq!(arrived(), (0, 1), "experiment 3: an NMI in the guest");
    check!(last_rip() == nothing as *const () as u64, "experiment 3: it comes before the first instruction");
}

/// 4: a guest that leaves blocked leaves its hypervisor blocked.
fn blocked_guest() {
    let mut guest = nested(nothing);
    guest.write(vmcs::GUEST_INTERRUPTIBILITY, BLOCKING);
    check_eq!(guest.run(), ExitReason::VMCALL, "experiment 4: end");
    check!(nmi::is_blocked(&guest), "experiment 4: the guest is blocked");
    send();
    check_eq!(arrived(), (0, 0), "experiment 4: an NMI after the exit");
    unblock();
    check_eq!(arrived(), (1, 0), "experiment 4: after IRET");
}

/// 15: an interrupt that VM entry injects comes before an NMI that waits.
fn pending_and_interrupt() {
    handle(KEYBOARD, Some(|_| true));
    let mut guest = nested(nothing);
    let event = Interruption::new(KEYBOARD, InterruptionType::EXTERNAL, false);
    guest.write(vmcs::GUEST_RFLAGS, 0x202);
    guest.write(vmcs::ENTRY_INTERRUPTION_INFORMATION, event.0);
    send();
    check_eq!(guest.run(), ExitReason::VMCALL, "experiment 15: end");
    check_eq!(arrived(), (0, 1), "experiment 15: an NMI in the guest");
    let distance = last_rip().wrapping_sub(entry(KEYBOARD));
    check!(distance <= 2, "experiment 15: the NMI came before {:#x}, not in the handler", last_rip());
}

/// 18: an injected NMI leaves the guest unblocked.
fn injected() {
    let mut guest = nested(nothing);
    guest.write(vmcs::ENTRY_INTERRUPTION_INFORMATION, INJECTED);
    in_guest_handler(|| {
        send();
        vmcall();
    });
    check_eq!(guest.run(), ExitReason::VMCALL, "experiment 18: in the handler");
    check_eq!(arrived(), (0, 2), "experiment 18: an NMI within the handler of an injected one");
    check!(!nmi::is_blocked(&guest), "experiment 18: the guest is not blocked");
    guest.advance();
    check_eq!(guest.run(), ExitReason::VMCALL, "experiment 18: end");
    check!(guest.has_ended(), "experiment 18: end");
    check_eq!(arrived(), (0, 2), "experiment 18: NMIs in the end");
}

/// 27: of two that the blocked guest gets one is left.
fn one_deep() {
    let mut guest = nested(send_two_and_unblock);
    guest.write(vmcs::GUEST_INTERRUPTIBILITY, BLOCKING);
    check_eq!(guest.run(), ExitReason::VMCALL, "experiment 27: before IRET");
    check_eq!(arrived(), (0, 0), "experiment 27: NMIs while blocked");
    guest.advance();
    check_eq!(guest.run(), ExitReason::VMCALL, "experiment 27: end");
    check_eq!(arrived(), (0, 1), "experiment 27: NMIs after IRET");
    unblock();
    check_eq!(arrived(), (0, 1), "experiment 27: NMIs in the hypervisor");
}

/// 29: of two that the blocked hypervisor gets one is left.
fn one_deep_in_hypervisor() {
    blocked(|| {
        send();
        send();
        check_eq!(arrived(), (0, 0), "experiment 29: NMIs while blocked");
        unblock();
        check_eq!(arrived(), (1, 0), "experiment 29: NMIs after IRET");
        unblock();
        check_eq!(arrived(), (1, 0), "experiment 29: NMIs after another IRET");
    });
}

extern "C" fn nothing() {}

extern "C" fn send_one() {
    send();
}

extern "C" fn send_two_and_unblock() {
    send();
    send();
    vmcall();
    iret();
    guest::cpu::wait(50_000);
    iret();
    guest::cpu::wait(50_000);
}
