//! NMI/INIT/SIPI: NMI-window exiting of a hypervisor whose guest has virtual NMIs.
#![no_std]
#![no_main]

use guest::cpu::{iret, vmcall, wait};
use guest::vmx::nmi::{self, BLOCKING, INJECTED, arrived, blocked, finish, in_guest_handler, send};
use guest::vmx::prelude::*;
use x86::vmx::controls::{PinBasedControls, PrimaryControls};

guest!(main);

fn main() {
    nmi::initialise();
    enter_operation();
    let experiments: [fn(); 4] = [at_once, none, after_iret, behind_injected];
    for experiment in experiments {
        experiment();
        finish();
    }
    blocked(before_pending);
    leave_operation();
}

fn nested(code: extern "C" fn(), interruptibility: u32) -> Guest {
    let mut guest = nmi::guest(PinBasedControls::NMI_EXITING | PinBasedControls::VIRTUAL_NMIS, code);
    assert!(guest.add_primary(PrimaryControls::NMI_WINDOW_EXITING), "the processor has no NMI window");
    guest.write(vmcs::GUEST_INTERRUPTIBILITY, interruptibility);
    guest
}

fn close_window(guest: &mut Guest) {
    guest.remove(vmcs::PRIMARY_CONTROLS, PrimaryControls::NMI_WINDOW_EXITING.bits());
}

/// 21: a guest that is not blocked leaves before its first instruction, as often as it is entered.
fn at_once() {
    let mut guest = nested(nothing, 0);
    for _ in 0..2 {
        check_eq!(guest.run(), ExitReason::NMI_WINDOW, "experiment 21: exit");
        check_eq!(guest.read(vmcs::GUEST_RIP), nothing as *const () as u64, "experiment 21: its place");
    }
    close_window(&mut guest);
    check_eq!(guest.run(), ExitReason::VMCALL, "experiment 21: end");
}

/// 22: one that is virtually blocked does not.
fn none() {
    let mut guest = nested(nothing, BLOCKING);
    check_eq!(guest.run(), ExitReason::VMCALL, "experiment 22: end");
    check!(guest.has_ended(), "experiment 22: end");
}

/// 23: not before its IRET, and right behind it.
fn after_iret() {
    let mut guest = nested(unblock_itself, BLOCKING);
    check_eq!(guest.run(), ExitReason::VMCALL, "experiment 23: before IRET");
    guest.advance();
    check_eq!(guest.run(), ExitReason::NMI_WINDOW, "experiment 23: exit after IRET");
    check!(!nmi::is_blocked(&guest), "experiment 23: virtual blocking after IRET");
    close_window(&mut guest);
    check_eq!(guest.run(), ExitReason::VMCALL, "experiment 23: behind IRET");
    guest.advance();
    check_eq!(guest.registers.rax & 1, 1, "experiment 23: what follows IRET ran after the exit");
    check_eq!(guest.run(), ExitReason::VMCALL, "experiment 23: end");
}

/// 24: the window comes before an NMI that waits, which then is the hypervisor's.
fn before_pending() {
    let mut guest = nested(nothing, 0);
    send();
    check_eq!(arrived(), (0, 0), "experiment 24: an NMI while blocked");
    check_eq!(guest.run(), ExitReason::NMI_WINDOW, "experiment 24: exit");
    wait(50_000);
    check_eq!(arrived(), (1, 0), "experiment 24: the NMI after the exit");
    close_window(&mut guest);
    check_eq!(guest.run(), ExitReason::VMCALL, "experiment 24: end");
    check_eq!(arrived(), (1, 0), "experiment 24: NMIs in the end");
}

/// 25: an injected NMI blocks, and the window opens with its handler's IRET.
fn behind_injected() {
    let mut guest = nested(nothing, 0);
    guest.write(vmcs::ENTRY_INTERRUPTION_INFORMATION, INJECTED);
    in_guest_handler(vmcall);
    check_eq!(guest.run(), ExitReason::VMCALL, "experiment 25: in the handler");
    check_eq!(arrived(), (0, 1), "experiment 25: the injected NMI");
    check!(nmi::is_blocked(&guest), "experiment 25: virtual blocking in the handler");
    guest.advance();
    check_eq!(guest.run(), ExitReason::NMI_WINDOW, "experiment 25: exit after the handler");
    check_eq!(guest.read(vmcs::GUEST_RIP), nothing as *const () as u64, "experiment 25: its place");
    close_window(&mut guest);
    check_eq!(guest.run(), ExitReason::VMCALL, "experiment 25: end");
}

extern "C" fn nothing() {}

extern "C" fn unblock_itself() {
    vmcall();
    iret();
    set_rax_and_call();
}

fn set_rax_and_call() {
    let _ = guest::run(
        guest::Mode::Kernel64,
        guest::snippet!("mov eax, 1", "vmcall"),
        &mut guest::Regs::default(),
    );
}
