//! NMI/INIT/SIPI: NMIs of a hypervisor whose guest has NMI exiting and no virtual NMIs.
#![no_std]
#![no_main]

use guest::cpu::{iret, vmcall, wait};
use guest::trap::{entry, handle};
use guest::vmx::nmi::{
    self, BLOCKING, INJECTED, arrived, blocked, finish, in_guest_handler, is_nmi_exit, send, unblock,
};
use guest::vmx::prelude::*;
use x86::vmx::controls::PinBasedControls;
use x86::vmx::interruption::{Interruption, InterruptionType};

guest!(main);

const KEYBOARD: u8 = 0x21;

fn main() {
    nmi::initialise();
    enter_operation();
    let experiments: [fn(); 3] = [to_hypervisor, blocked_guest, injected];
    for experiment in experiments {
        experiment();
        finish();
    }
    blocked(pending);
    blocked(pending_and_interrupt);
    blocked(one_deep);
    leave_operation();
}

fn nested(code: extern "C" fn()) -> Guest {
    nmi::guest(PinBasedControls::NMI_EXITING, code)
}

/// 5: an NMI in the guest is an exit, after which the hypervisor is blocked.
fn to_hypervisor() {
    let mut guest = nested(send_one);
    let reason = guest.run();
    check!(is_nmi_exit(&guest, reason), "experiment 5: exit {}", reason.name());
    check_eq!(arrived(), (0, 0), "experiment 5: handlers");
    send();
    check_eq!(arrived(), (0, 0), "experiment 5: an NMI after the exit");
    unblock();
    check_eq!(arrived(), (1, 0), "experiment 5: after IRET");
    check_eq!(guest.run(), ExitReason::VMCALL, "experiment 5: end");
}

/// 6: a blocked guest gets none, and its IRET changes nothing; the hypervisor's does.
fn blocked_guest() {
    let mut guest = nested(send_and_unblock);
    guest.write(vmcs::GUEST_INTERRUPTIBILITY, BLOCKING);
    check_eq!(guest.run(), ExitReason::VMCALL, "experiment 6: an NMI while blocked");
    guest.advance();
    check_eq!(guest.run(), ExitReason::VMCALL, "experiment 6: after the guest's IRET");
    check!(nmi::is_blocked(&guest), "experiment 6: the guest is blocked after its IRET");
    wait(50_000);
    check_eq!(arrived(), (0, 0), "experiment 6: NMIs after the exit");
    unblock();
    check_eq!(arrived(), (1, 0), "experiment 6: after IRET");
}

/// 7: one that the blocked hypervisor gets leaves the guest that is not blocked, before its first instruction.
fn pending() {
    let mut guest = nested(nothing);
    send();
    let reason = guest.run();
    check!(is_nmi_exit(&guest, reason), "experiment 7: exit {}", reason.name());
    check_eq!(guest.read(vmcs::GUEST_RIP), nothing as *const () as u64, "experiment 7: place of the exit");
    check_eq!(guest.run(), ExitReason::VMCALL, "experiment 7: end");
    check_eq!(arrived(), (0, 0), "experiment 7: handlers");
}

/// 16: an interrupt that VM entry injects comes before an NMI that waits.
fn pending_and_interrupt() {
    handle(KEYBOARD, Some(|_| true));
    let mut guest = nested(nothing);
    let event = Interruption::new(KEYBOARD, InterruptionType::EXTERNAL, false);
    guest.write(vmcs::GUEST_RFLAGS, 0x202);
    guest.write(vmcs::ENTRY_INTERRUPTION_INFORMATION, event.0);
    send();
    let reason = guest.run();
    check!(is_nmi_exit(&guest, reason), "experiment 16: exit {}", reason.name());
    let distance = guest.read(vmcs::GUEST_RIP).wrapping_sub(entry(KEYBOARD));
    check!(distance <= 2, "experiment 16: the exit is {distance:#x} behind the handler's first instruction");
    check_eq!(guest.run(), ExitReason::VMCALL, "experiment 16: end");
}

/// 19: an injected NMI leaves the guest unblocked, so that another is an exit.
fn injected() {
    let mut guest = nested(nothing);
    guest.write(vmcs::ENTRY_INTERRUPTION_INFORMATION, INJECTED);
    in_guest_handler(|| {
        send();
        vmcall();
    });
    let reason = guest.run();
    check!(is_nmi_exit(&guest, reason), "experiment 19: exit {}", reason.name());
    check_eq!(arrived(), (0, 1), "experiment 19: the injected NMI");
    check!(!nmi::is_blocked(&guest), "experiment 19: the guest is not blocked");
}

/// 28: of two that the blocked hypervisor gets one is an exit.
fn one_deep() {
    let mut guest = nested(nothing);
    send();
    send();
    let reason = guest.run();
    check!(is_nmi_exit(&guest, reason), "experiment 28: exit {}", reason.name());
    check_eq!(guest.run(), ExitReason::VMCALL, "experiment 28: no other exit");
    unblock();
    check_eq!(arrived(), (0, 0), "experiment 28: handlers");
}

extern "C" fn nothing() {}

extern "C" fn send_one() {
    send();
}

extern "C" fn send_and_unblock() {
    send();
    vmcall();
    iret();
    wait(50_000);
}
