//! Wrong reflection: external interrupts and the interrupt window of a guest's guest, running and halted.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};

use guest::cpu::wait;
use guest::trap::{Frame, handle};
use guest::vmx::prelude::*;
use guest::{Mode, Regs, Snippet, apic, run, smp, snippet};
use x86::vmx::controls::{ExitControls, PinBasedControls, PrimaryControls};

guest!(main);

const VECTOR: u8 = 0x51;
const IF: u64 = 1 << 9;
const ACTIVE: u32 = 0;
const HLT: u32 = 1;
const VALID: u32 = 1 << 31;
const BLOCKING_BY_STI: u32 = 1;
/// Ticks in which an interrupt that can arrive does.
const WHILE: u64 = 50_000;

/// Interrupts that the hypervisor and its guest took, and where the last one struck.
static IN_HYPERVISOR: AtomicU64 = AtomicU64::new(0);
static IN_GUEST: AtomicU64 = AtomicU64::new(0);
static RIP: AtomicU64 = AtomicU64::new(0);

fn main() {
    handle(VECTOR, Some(arrive));
    apic::write(apic::register::SPURIOUS, 0x1ff);
    enter_operation();
    for activity in [ACTIVE, HLT] {
        nobody_wants(activity);
        is_wanted(activity, false);
        is_wanted(activity, true);
        window(activity);
    }
    masked();
    window_opens();
    leave_operation();
}

/// Interrupts that came to the hypervisor and to its guest since the last time.
fn arrived() -> (u64, u64) {
    (IN_HYPERVISOR.swap(0, Ordering::SeqCst), IN_GUEST.swap(0, Ordering::SeqCst))
}

fn arrive(frame: &mut Frame) -> bool {
    RIP.store(frame.rip, Ordering::SeqCst);
    if smp::is_nested_stack(frame.rsp) { &IN_GUEST } else { &IN_HYPERVISOR }.fetch_add(1, Ordering::SeqCst);
    apic::end_of_interrupt();
    true
}

fn send() {
    apic::interrupt_self(VECTOR);
    wait(WHILE);
}

/// Has the hypervisor take what is pending.
fn open() {
    let seen = run(Mode::Kernel64, snippet!("sti", "nop", "nop", "cli"), &mut Regs::default());
    check_eq!(seen, Ok(()), "a window of the hypervisor's");
}

/// Never inlined, for there is to be one of it.
#[inline(never)]
fn nothing() -> Snippet {
    snippet!("nop", "nop", "ret")
}

/// Has the next entry begin [`nothing`] in this state.
fn begin(nested: &mut Guest, activity: u32, rflags: u64) -> u64 {
    nested.call(end);
    nested.write(vmcs::GUEST_RIP, nothing().address());
    nested.write(vmcs::GUEST_RFLAGS, rflags | 2);
    nested.write(vmcs::GUEST_ACTIVITY, activity);
    nothing().address()
}

extern "C" fn end() {}

/// Without external-interrupt exiting an interrupt is the guest's guest's.
fn nobody_wants(activity: u32) {
    let mut nested = Guest::new(end);
    let start = begin(&mut nested, activity, IF);
    send();
    check_eq!(arrived(), (0, 0), "activity {activity}: pending");
    check_eq!(nested.run(), ExitReason::VMCALL, "activity {activity}: the end");
    check_eq!(arrived(), (0, 1), "activity {activity}: taken");
    check_eq!(RIP.load(Ordering::SeqCst), start, "activity {activity}: before its first instruction");
    open();
    check_eq!(arrived(), (0, 0), "activity {activity}: nothing is left");
}

/// With it an interrupt leaves. It would with interrupts off too, but Bochs looks at RFLAGS.IF first.
fn is_wanted(activity: u32, is_acknowledged: bool) {
    let what = format_args!("activity {activity}, acknowledged {is_acknowledged}");
    let mut nested = Guest::new(end);
    check!(nested.add_pin(PinBasedControls::EXTERNAL_INTERRUPT_EXITING), "external-interrupt exiting");
    if is_acknowledged {
        check!(nested.add_exit(ExitControls::ACKNOWLEDGE_INTERRUPT_ON_EXIT), "acknowledging on exit");
    }
    let start = begin(&mut nested, activity, IF);
    send();
    check_eq!(nested.run(), ExitReason::EXTERNAL_INTERRUPT, "{what}");
    let event = nested.read(vmcs::EXIT_INTERRUPTION_INFORMATION);
    check_eq!(nested.read(vmcs::GUEST_RIP), start, "{what}: its place");
    check_eq!(nested.read(vmcs::GUEST_ACTIVITY), activity, "{what}: the saved state");
    check_eq!(arrived(), (0, 0), "{what}: nobody has it");
    if is_acknowledged {
        check_eq!(event, VALID | u32::from(VECTOR), "{what}: the interrupt");
        open();
        check_eq!(arrived(), (0, 0), "{what}: it is in service");
        apic::end_of_interrupt();
    } else {
        check_eq!(event & VALID, 0, "{what}: no interrupt is told");
        open();
    }
    check_eq!(arrived(), (u64::from(!is_acknowledged), 0), "{what}: what the hypervisor took");
    nested.write(vmcs::GUEST_ACTIVITY, ACTIVE);
    check_eq!(nested.run(), ExitReason::VMCALL, "{what}: the end");
    check_eq!(arrived(), (0, 0), "{what}: the end");
}

/// The window is open at once where interrupts are on, and comes before an interrupt that is pending.
fn window(activity: u32) {
    for (is_pending, exits) in [(true, false), (true, true), (false, false)] {
        if activity == HLT && !is_pending {
            // Bochs sleeps on, where the window wakes processors (SDM, "Other Causes of VM Exits").
            continue;
        }
        let what = format_args!("activity {activity}, pending {is_pending}, wanted {exits}");
        let mut nested = Guest::new(end);
        check!(nested.add_primary(PrimaryControls::INTERRUPT_WINDOW_EXITING), "interrupt-window exiting");
        if exits {
            check!(
                nested.add_pin(PinBasedControls::EXTERNAL_INTERRUPT_EXITING),
                "external-interrupt exiting"
            );
        }
        let start = begin(&mut nested, activity, IF);
        if is_pending {
            send();
        }
        check_eq!(nested.run(), ExitReason::INTERRUPT_WINDOW, "{what}");
        check_eq!(nested.read(vmcs::GUEST_RIP), start, "{what}: its place");
        check_eq!(nested.read(vmcs::GUEST_ACTIVITY), activity, "{what}: the saved state");
        check_eq!(arrived(), (0, 0), "{what}: nobody has an interrupt");
        nested.remove(vmcs::PRIMARY_CONTROLS, PrimaryControls::INTERRUPT_WINDOW_EXITING.bits());
        nested.write(vmcs::GUEST_ACTIVITY, ACTIVE);
        let mut reason = nested.run();
        if exits {
            check_eq!(reason, ExitReason::EXTERNAL_INTERRUPT, "{what}: behind the window");
            open();
            reason = nested.run();
        }
        check_eq!(reason, ExitReason::VMCALL, "{what}: the end");
        let expected = (u64::from(exits), u64::from(is_pending && !exits));
        check_eq!(arrived(), expected, "{what}: who took the interrupt");
    }
}

/// An interrupt waits while the guest's guest has interrupts off, and for its hypervisor behind the exit.
fn masked() {
    let mut nested = Guest::new(end);
    begin(&mut nested, ACTIVE, 0);
    send();
    check_eq!(nested.run(), ExitReason::VMCALL, "with interrupts off");
    check_eq!(arrived(), (0, 0), "with interrupts off");
    open();
    check_eq!(arrived(), (1, 0), "in the hypervisor");
}

/// The window opens one instruction behind STI.
fn window_opens() {
    let code = snippet!("nop", "sti", "nop", "nop", "cli", "ret");
    let mut nested = Guest::new(end);
    check!(nested.add_primary(PrimaryControls::INTERRUPT_WINDOW_EXITING), "interrupt-window exiting");
    begin(&mut nested, ACTIVE, 0);
    nested.write(vmcs::GUEST_RIP, code.address());
    check_eq!(nested.run(), ExitReason::INTERRUPT_WINDOW, "STI");
    check_eq!(nested.read(vmcs::GUEST_RIP), code.address() + 3, "the place behind STI");
    check_eq!(nested.read(vmcs::GUEST_INTERRUPTIBILITY), 0, "no blocking is left");
    // Where it blocks, the entry does not leave before the instruction behind it.
    begin(&mut nested, ACTIVE, IF);
    nested.write(vmcs::GUEST_INTERRUPTIBILITY, BLOCKING_BY_STI);
    check_eq!(nested.run(), ExitReason::INTERRUPT_WINDOW, "blocking by STI");
    check_eq!(nested.read(vmcs::GUEST_RIP), nothing().address() + 1, "the place behind the blocking");
    // Interrupts off: no window.
    nested.write(vmcs::GUEST_RFLAGS, 2);
    check_eq!(nested.run(), ExitReason::VMCALL, "no window");
}
