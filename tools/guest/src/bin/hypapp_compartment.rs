//! What a hypapp asks for while a guest is in a compartment holds once it is back: interrupts, windows and views, for the
//! guest and for a guest of its own.
//! hypapp: intercept
//! bare: no
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};

use guest::cpu::{wait, wrmsr};
use guest::memory::write64;
use guest::trap::{Frame, handle};
use guest::vmx::prelude::*;
use guest::vmx::{Ept, allocate};
use guest::{Fault, Mode, Regs, apic, run, snippet};
use x86::msr::Msr;

guest!(main);

const SELECTOR: u64 = 0x494e_5443;
const NESTED_OFFSET: u64 = 0x4c41_5000;
const SEEN: u64 = 0;
const WATCH_INTERRUPTS: u64 = 1;
const WATCH_WINDOW: u64 = 2;
const ENTER: u64 = 4;
const LEAVE: u64 = 5;
const VIEW: u64 = 6;
const VIEW_MSR: Msr = Msr(0xc000_1010);
const VECTOR: u8 = 0x51;
/// Ticks in which an interrupt arrives.
const WHILE: u64 = 50_000;

static TAKEN: AtomicU64 = AtomicU64::new(0);
static OFFSET: AtomicU64 = AtomicU64::new(0);
static PAGE: AtomicU64 = AtomicU64::new(0);

fn main() {
    handle(VECTOR, Some(arrive));
    apic::write(apic::register::SPURIOUS, 0x1ff);
    PAGE.store(allocate(), Ordering::SeqCst);
    all();
    enter_operation();
    OFFSET.store(NESTED_OFFSET, Ordering::SeqCst);
    let mut nested = Guest::new(all_of_l2);
    check_eq!(nested.run(), ExitReason::VMCALL, "the guest's guest ends");
    let ept = Ept::identity();
    nested.use_ept(&ept);
    nested.call(all_of_l2);
    check_eq!(nested.run(), ExitReason::VMCALL, "with EPT the guest's guest ends");
    for command in [WATCH_INTERRUPTS, WATCH_WINDOW] {
        asked_for_hypervisor(&mut nested, command);
    }
    leave_operation();
}

/// L2.
extern "C" fn all_of_l2() {
    all();
}

fn all() {
    for command in [WATCH_INTERRUPTS, WATCH_WINDOW] {
        let before = call(SEEN);
        check_eq!(call_inside(command, 0), before, "command {command}: from a compartment");
        interrupt();
        check_eq!(call(SEEN), before + 1, "command {command}: seen behind it");
        interrupt();
        check_eq!(call(SEEN), before + 1, "command {command}: once");
        // What is watched when the compartment is entered is so when it is left.
        call(command);
        check_eq!(call_inside(SEEN, 0), before + 1, "command {command}: nothing is seen inside");
        interrupt();
        check_eq!(call(SEEN), before + 2, "command {command}: seen behind the compartment");
    }
    let page = PAGE.load(Ordering::SeqCst);
    call_inside(VIEW, page);
    check_eq!(write64(page, 1), Err(Fault::GP), "a page that is read-only since the compartment");
    check_eq!(wrmsr(VIEW_MSR, 0), Ok(()), "closing the view");
    check_eq!(write64(page, 1), Ok(()), "the page in the shared view");
    check_eq!(wrmsr(VIEW_MSR, page), Ok(()), "opening a view");
    check_eq!(write64(page, 1), Err(Fault::GP), "a page that is read-only");
    call_inside(VIEW, 0);
    check_eq!(write64(page, 1), Ok(()), "the page, with the view closed in the compartment");
}

/// What L2 asks for in a compartment holds for its hypervisor.
fn asked_for_hypervisor(nested: &mut Guest, command: u64) {
    let ask: extern "C" fn() = if command == WATCH_WINDOW { ask_for_window } else { ask_for_interrupts };
    OFFSET.store(0, Ordering::SeqCst);
    let before = call(SEEN);
    OFFSET.store(NESTED_OFFSET, Ordering::SeqCst);
    nested.call(ask);
    check_eq!(nested.run(), ExitReason::VMCALL, "command {command}: L2 asks");
    OFFSET.store(0, Ordering::SeqCst);
    interrupt();
    check_eq!(call(SEEN), before + 1, "command {command}: seen by the hypervisor");
}

/// L2.
extern "C" fn ask_for_interrupts() {
    call_inside(WATCH_INTERRUPTS, 0);
}

/// L2.
extern "C" fn ask_for_window() {
    call_inside(WATCH_WINDOW, 0);
}

/// Calls the hypapp from a compartment; gives what it returned.
fn call_inside(command: u64, rdx: u64) -> u64 {
    let offset = OFFSET.load(Ordering::SeqCst);
    let [enter, inside, leave] = [ENTER, command, LEAVE].map(|command| command + offset);
    let code =
        snippet!("vmcall", "mov rax, r9", "vmcall", "mov r11, rax", "mov rax, r10", "vmcall", "mov ecx, 7");
    let mut regs = Regs { rax: enter, rbx: SELECTOR, rdx, r9: inside, r10: leave, rcx: 1, ..Regs::default() };
    check_eq!(run(Mode::Kernel64, code, &mut regs), Ok(()), "there and back");
    check_eq!(regs.rcx, 7, "behind the compartment");
    regs.r11
}

/// Calls the hypapp.
fn call(command: u64) -> u64 {
    let command = command + OFFSET.load(Ordering::SeqCst);
    let mut regs = Regs { rax: command, rbx: SELECTOR, ..Regs::default() };
    check_eq!(run(Mode::Kernel64, snippet!("vmcall"), &mut regs), Ok(()), "the hypercall exists");
    regs.rax
}

/// Sends an interrupt and takes it.
fn interrupt() {
    let before = TAKEN.load(Ordering::SeqCst);
    apic::interrupt_self(VECTOR);
    wait(WHILE);
    let seen = run(Mode::Kernel64, snippet!("sti", "nop", "nop", "cli"), &mut Regs::default());
    check_eq!((seen, TAKEN.load(Ordering::SeqCst)), (Ok(()), before + 1), "the interrupt is taken");
}

fn arrive(_: &mut Frame) -> bool {
    TAKEN.fetch_add(1, Ordering::SeqCst);
    apic::end_of_interrupt();
    true
}
