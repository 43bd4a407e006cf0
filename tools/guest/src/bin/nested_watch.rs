//! What a hypapp watches holds for a guest and for its guest, whoever runs when it asks, and beside what the hypervisor
//! between them wants.
//! hypapp: intercept
//! bare: no
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};

use guest::cpu::wait;
use guest::trap::{Frame, handle};
use guest::vmx::prelude::*;
use guest::{Mode, Regs, apic, run, smp, snippet};
use x86::vmx::controls::{ExitControls, PinBasedControls, PrimaryControls};

guest!(main);

const SELECTOR: u64 = 0x494e_5443;
const NESTED_OFFSET: u64 = 0x4c41_5000;
const SEEN: u64 = 0;
const WATCH_INTERRUPTS: u64 = 1;
const WATCH_WINDOW: u64 = 2;
const VECTOR: u8 = 0x51;
/// Ticks in which an interrupt arrives.
const WHILE: u64 = 50_000;

/// Interrupts that the hypervisor and its guest took.
static IN_HYPERVISOR: AtomicU64 = AtomicU64::new(0);
static IN_GUEST: AtomicU64 = AtomicU64::new(0);
/// What the guest's guest asks for before and after its interrupt.
static FIRST: AtomicU64 = AtomicU64::new(SEEN);
static LAST: AtomicU64 = AtomicU64::new(SEEN);

fn main() {
    handle(VECTOR, Some(arrive));
    apic::write(apic::register::SPURIOUS, 0x1ff);
    enter_operation();
    for command in [WATCH_INTERRUPTS, WATCH_WINDOW] {
        asked_by_hypervisor(command);
        asked_by_its_guest(command);
        wanted_by_both(command, false);
    }
    wanted_by_both(WATCH_INTERRUPTS, true);
    not_acknowledged();
    leave_operation();
}

/// L2.
extern "C" fn interrupted() {
    call(NESTED_OFFSET + FIRST.load(Ordering::SeqCst));
    send();
    open();
    call(NESTED_OFFSET + LAST.load(Ordering::SeqCst));
}

/// Between two entries that nothing else changes for.
fn asked_by_hypervisor(command: u64) {
    let mut nested = begin(SEEN, SEEN);
    let before = seen();
    check_eq!(nested.run(), ExitReason::VMCALL, "command {command}: nobody watches");
    check_eq!((seen(), arrived()), (before, (0, 1)), "command {command}: nobody watches");
    nested.call(interrupted);
    call(command);
    check_eq!(nested.run(), ExitReason::VMCALL, "command {command}: asked by the hypervisor");
    check_eq!((seen(), arrived()), (before + 1, (0, 1)), "command {command}: asked by the hypervisor");
    nested.call(interrupted);
    check_eq!(nested.run(), ExitReason::VMCALL, "command {command}: over");
    check_eq!((seen(), arrived()), (before + 1, (0, 1)), "command {command}: over");
}

fn asked_by_its_guest(command: u64) {
    let mut nested = begin(command, SEEN);
    let before = seen();
    check_eq!(nested.run(), ExitReason::VMCALL, "command {command}: asked by the guest's guest");
    check_eq!((seen(), arrived()), (before + 1, (0, 1)), "command {command}: asked by the guest's guest");
    // Asked for at its end, it holds for its hypervisor, and for another guest of that one's.
    for is_for_another in [false, true] {
        let what = format_args!("command {command}, for another {is_for_another}");
        let before = seen();
        nested = begin(SEEN, command);
        check_eq!(nested.run(), ExitReason::VMCALL, "{what}: asked at the end");
        check_eq!((seen(), arrived()), (before, (0, 1)), "{what}: asked at the end");
        if is_for_another {
            nested = begin(SEEN, SEEN);
            check_eq!(nested.run(), ExitReason::VMCALL, "{what}: the other's end");
            check_eq!((seen(), arrived()), (before + 1, (0, 1)), "{what}: in the other");
        } else {
            send();
            open();
            check_eq!((seen(), arrived()), (before + 1, (1, 0)), "{what}: in the hypervisor");
        }
    }
}

/// The hypapp hears of it, and the hypervisor has its exit as without.
fn wanted_by_both(command: u64, is_acknowledged: bool) {
    let what = format_args!("command {command}, acknowledged {is_acknowledged}");
    let mut nested = begin(command, SEEN);
    let reason = if command == WATCH_WINDOW {
        check!(nested.add_primary(PrimaryControls::INTERRUPT_WINDOW_EXITING), "interrupt-window exiting");
        ExitReason::INTERRUPT_WINDOW
    } else {
        check!(nested.add_pin(PinBasedControls::EXTERNAL_INTERRUPT_EXITING), "external-interrupt exiting");
        ExitReason::EXTERNAL_INTERRUPT
    };
    if is_acknowledged {
        check!(nested.add_exit(ExitControls::ACKNOWLEDGE_INTERRUPT_ON_EXIT), "acknowledging on exit");
    }
    let before = seen();
    check_eq!(nested.run(), reason, "{what}");
    check_eq!((seen(), arrived()), (before + 1, (0, 0)), "{what}: the exit");
    if is_acknowledged {
        let event = nested.read(vmcs::EXIT_INTERRUPTION_INFORMATION);
        check_eq!(event, 1 << 31 | u32::from(VECTOR), "{what}: the interrupt");
        apic::end_of_interrupt();
    }
    open();
    let expected = (u64::from(!is_acknowledged), 0);
    check_eq!((seen(), arrived()), (before + 1, expected), "{what}: who took it");
    nested.remove(vmcs::PRIMARY_CONTROLS, PrimaryControls::INTERRUPT_WINDOW_EXITING.bits());
    check_eq!(nested.run(), ExitReason::VMCALL, "{what}: the end");
    check_eq!((seen(), arrived()), (before + 1, (0, 0)), "{what}: the end");
}

/// An interrupt that exits for the hypapp alone stays where it is, whatever the hypervisor says of its own exits.
fn not_acknowledged() {
    let mut nested = begin(WATCH_INTERRUPTS, SEEN);
    check!(nested.add_exit(ExitControls::ACKNOWLEDGE_INTERRUPT_ON_EXIT), "acknowledging on exit");
    let before = seen();
    check_eq!(nested.run(), ExitReason::VMCALL, "an interrupt of the guest's guest");
    check_eq!((seen(), arrived()), (before + 1, (0, 1)), "an interrupt of the guest's guest");
}

fn begin(first: u64, last: u64) -> Guest {
    FIRST.store(first, Ordering::SeqCst);
    LAST.store(last, Ordering::SeqCst);
    Guest::new(interrupted)
}

fn seen() -> u64 {
    call(SEEN)
}

/// Calls the hypapp.
fn call(command: u64) -> u64 {
    let mut regs = Regs { rax: command, rbx: SELECTOR, ..Regs::default() };
    check_eq!(run(Mode::Kernel64, snippet!("vmcall"), &mut regs), Ok(()), "the hypercall exists");
    regs.rax
}

fn send() {
    apic::interrupt_self(VECTOR);
    wait(WHILE);
}

/// Takes what is pending.
fn open() {
    let seen = run(Mode::Kernel64, snippet!("sti", "nop", "nop", "cli"), &mut Regs::default());
    check_eq!(seen, Ok(()), "a window");
}

/// Interrupts that came to the hypervisor and to its guest since the last time.
fn arrived() -> (u64, u64) {
    (IN_HYPERVISOR.swap(0, Ordering::SeqCst), IN_GUEST.swap(0, Ordering::SeqCst))
}

fn arrive(frame: &mut Frame) -> bool {
    if smp::is_nested_stack(frame.rsp) { &IN_GUEST } else { &IN_HYPERVISOR }.fetch_add(1, Ordering::SeqCst);
    apic::end_of_interrupt();
    true
}
