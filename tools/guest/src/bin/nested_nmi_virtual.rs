//! NMI/INIT/SIPI: NMIs of a hypervisor whose guest has NMI exiting and virtual NMIs: the guest's blocking is its own.
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
    let experiments: [fn(); 3] = [to_hypervisor, unblocking, injected];
    for experiment in experiments {
        experiment();
        finish();
    }
    blocked(|| pending(10, 0));
    blocked(|| pending(11, BLOCKING));
    blocked(|| unblocks_hypervisor(13, 0));
    blocked(|| unblocks_hypervisor(14, BLOCKING));
    blocked(pending_and_interrupt);
    blocked(pending_and_injected);
    blocked(one_deep);
    leave_operation();
}

fn nested(code: extern "C" fn(), interruptibility: u32) -> Guest {
    let mut guest = nmi::guest(PinBasedControls::NMI_EXITING | PinBasedControls::VIRTUAL_NMIS, code);
    guest.write(vmcs::GUEST_INTERRUPTIBILITY, interruptibility);
    guest
}

/// 8 and 9: an NMI is an exit, whether the guest is virtually blocked or not.
fn to_hypervisor() {
    for (number, interruptibility) in [(8, 0), (9, BLOCKING)] {
        let mut guest = nested(send_one, interruptibility);
        let reason = guest.run();
        check!(is_nmi_exit(&guest, reason), "experiment {number}: exit {}", reason.name());
        check_eq!(
            nmi::is_blocked(&guest),
            interruptibility != 0,
            "experiment {number}: virtual blocking after the exit"
        );
        send();
        check_eq!(arrived(), (0, 0), "experiment {number}: an NMI after the exit");
        unblock();
        check_eq!(arrived(), (1, 0), "experiment {number}: after IRET");
        check_eq!(guest.run(), ExitReason::VMCALL, "experiment {number}: end");
        finish();
    }
}

/// 10 and 11: one that the blocked hypervisor gets is an exit, before the guest's first instruction.
fn pending(number: u32, interruptibility: u32) {
    let mut guest = nested(nothing, interruptibility);
    send();
    let reason = guest.run();
    check!(is_nmi_exit(&guest, reason), "experiment {number}: exit {}", reason.name());
    check_eq!(guest.read(vmcs::GUEST_RIP), nothing as *const () as u64, "experiment {number}: its place");
    check_eq!(arrived(), (0, 0), "experiment {number}: handlers");
}

/// 12: the guest's IRET ends its virtual blocking.
fn unblocking() {
    let mut guest = nested(unblock_itself, BLOCKING);
    check_eq!(guest.run(), ExitReason::VMCALL, "experiment 12: before IRET");
    check!(nmi::is_blocked(&guest), "experiment 12: virtual blocking before IRET");
    guest.advance();
    check_eq!(guest.run(), ExitReason::VMCALL, "experiment 12: end");
    check!(!nmi::is_blocked(&guest), "experiment 12: virtual blocking after IRET");
}

/// 13 and 14: a blocked hypervisor is not blocked any more after its guest ran.
fn unblocks_hypervisor(number: u32, interruptibility: u32) {
    let mut guest = nested(nothing, interruptibility);
    check_eq!(guest.run(), ExitReason::VMCALL, "experiment {number}: end");
    check_eq!(arrived(), (0, 0), "experiment {number}: before the NMI");
    send();
    check_eq!(arrived(), (1, 0), "experiment {number}: an NMI after the exit");
}

/// 17: an interrupt that VM entry injects comes before an NMI that waits.
fn pending_and_interrupt() {
    handle(KEYBOARD, Some(|_| true));
    let mut guest = nested(nothing, 0);
    let event = Interruption::new(KEYBOARD, InterruptionType::EXTERNAL, false);
    guest.write(vmcs::GUEST_RFLAGS, 0x202);
    guest.write(vmcs::ENTRY_INTERRUPTION_INFORMATION, event.0);
    send();
    let reason = guest.run();
    check!(is_nmi_exit(&guest, reason), "experiment 17: exit {}", reason.name());
    let distance = guest.read(vmcs::GUEST_RIP).wrapping_sub(entry(KEYBOARD));
    check!(distance <= 2, "experiment 17: the exit is {distance:#x} behind the handler's first instruction");
    check_eq!(guest.run(), ExitReason::VMCALL, "experiment 17: end");
}

/// 20: an injected NMI leaves the guest virtually blocked.
fn injected() {
    let mut guest = nested(nothing, 0);
    guest.write(vmcs::ENTRY_INTERRUPTION_INFORMATION, INJECTED);
    in_guest_handler(vmcall);
    check_eq!(guest.run(), ExitReason::VMCALL, "experiment 20: in the handler");
    check_eq!(arrived(), (0, 1), "experiment 20: the injected NMI");
    check!(nmi::is_blocked(&guest), "experiment 20: virtual blocking in the handler");
    guest.advance();
    check_eq!(guest.run(), ExitReason::VMCALL, "experiment 20: end");
    check!(!nmi::is_blocked(&guest), "experiment 20: virtual blocking after the handler");
}

/// 26: the injected NMI comes first, then the one that waits is an exit.
fn pending_and_injected() {
    let mut guest = nested(nothing, 0);
    guest.write(vmcs::ENTRY_INTERRUPTION_INFORMATION, INJECTED);
    send();
    let reason = guest.run();
    check!(is_nmi_exit(&guest, reason), "experiment 26: exit {}", reason.name());
    let distance = guest.read(vmcs::GUEST_RIP).wrapping_sub(entry(2));
    check!(distance <= 2, "experiment 26: the exit is {distance:#x} behind the handler's first instruction");
    check!(nmi::is_blocked(&guest), "experiment 26: virtual blocking");
    check_eq!(guest.run(), ExitReason::VMCALL, "experiment 26: end");
    check_eq!(arrived(), (0, 1), "experiment 26: the injected NMI");
}

/// 30: of two that the blocked hypervisor gets one is an exit.
fn one_deep() {
    let mut guest = nested(nothing, 0);
    send();
    send();
    let reason = guest.run();
    check!(is_nmi_exit(&guest, reason), "experiment 30: exit {}", reason.name());
    check_eq!(guest.run(), ExitReason::VMCALL, "experiment 30: no other exit");
    unblock();
    check_eq!(arrived(), (0, 0), "experiment 30: handlers");
}

extern "C" fn nothing() {}

extern "C" fn send_one() {
    send();
}

extern "C" fn unblock_itself() {
    vmcall();
    iret();
    wait(1000);
}
