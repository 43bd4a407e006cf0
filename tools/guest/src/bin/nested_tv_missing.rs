//! Memory that a hypervisor has not given its guest yet: it is asked, and TrustVisor's command or call goes on.
//! hypapp: trustvisor
//! cmdline: pal_ticks=50000
//! bare: no
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};

use guest::memory::{FREE, read64, write64};
use guest::pal;
use guest::pal::prelude::*;
use guest::run::USER_BASE;
use guest::vmx::prelude::*;
use guest::vmx::{Ept, instruction, trial};
use guest::{Regs, apic};
use trustvisor::command::{Command, NESTED_OFFSET};
use x86::vmx::controls::{ExitControls, PinBasedControls};

guest!(main);

const PARAMETERS: [(ParameterType, u64); 2] = [(ParameterType::Integer, 0), (ParameterType::Pointer, 1)];
/// The lists of a registration, a page each.
const SECTIONS: u64 = FREE;
const LIST: u64 = FREE + PAGE;
/// A word that is passed by address.
const BUFFER: u64 = FREE + 0x8000;
const ROUNDS: u64 = 200_000;
const VECTOR: u8 = 0x40;
const PERIOD: u32 = 150_000;
const PERIODIC: u32 = 1 << 17;
const MASKED: u32 = 1 << 16;
const READ: u64 = 1;
const READ_WRITE: u64 = 3;
const READ_EXECUTE: u64 = 5;
const ALL: u64 = 7;

static RESULT: AtomicU64 = AtomicU64::new(0);

fn main() {
    enter_operation();
    let mut ept = Ept::identity();
    let mut nested = Guest::new(register);
    nested.use_ept(&ept);
    let pal = Pal { at: pal::PALS, mode: Mode::User64 };
    // Leaves the lists in memory.
    ends(&mut nested);
    check_eq!(RESULT.load(Ordering::SeqCst), 0, "registering where nothing lacks");
    command(&mut nested, Command::UNREGISTER, [pal.entry(), 0, 0, 0]);
    finishes(&mut nested, "unregistering");

    for (page, given) in
        [(SECTIONS, 0), (LIST, 0), (pal.at, READ_WRITE), (pal.data(), READ), (pal.data() + PAGE, 0)]
    {
        ept.map(page, page, given);
    }
    invalidate();
    let user = |address| USER_BASE + address;
    command(&mut nested, Command::REGISTER, [user(SECTIONS), 0, user(LIST), pal.entry()]);
    for (page, access, given) in [
        (SECTIONS, READ, 0),
        (LIST, READ, 0),
        (pal.at, READ_EXECUTE, READ_WRITE),
        (pal.data(), READ_WRITE, READ),
        (pal.data() + PAGE, READ_WRITE, 0),
    ] {
        asks(&mut nested, page, access, given);
        ept.map(page, page, ALL);
    }
    finishes(&mut nested, "registering page by page");

    ept.unmap(BUFFER);
    invalidate();
    nested.call(call);
    asks(&mut nested, BUFFER, READ_WRITE, 0);
    check_eq!(nested.read(vmcs::GUEST_RIP), pal.entry(), "the caller stands at the entry");
    ept.map(BUFFER, BUFFER, ALL);
    check_eq!(write64(BUFFER, 5), Ok(()), "the word");
    ends(&mut nested);
    check_eq!((RESULT.load(Ordering::SeqCst), read64(BUFFER)), (ROUNDS, Ok(5 + ROUNDS)), "the call");

    while_it_runs(&mut nested, &mut ept, &pal);
    ept.unmap(pal.at);
    invalidate();
    command(&mut nested, Command::UNREGISTER, [pal.entry(), 0, 0, 0]);
    asks(&mut nested, pal.at, READ_EXECUTE, 0);
    ept.map(pal.at, pal.at, ALL);
    finishes(&mut nested, "unregistering page by page");
    leave_operation();
}

/// The page of a result goes while the PAL runs: the return waits for it.
fn while_it_runs(nested: &mut Guest, ept: &mut Ept, pal: &Pal) {
    check!(nested.add_pin(PinBasedControls::EXTERNAL_INTERRUPT_EXITING), "external-interrupt exiting");
    check!(nested.add_exit(ExitControls::ACKNOWLEDGE_INTERRUPT_ON_EXIT), "acknowledging on exit");
    apic::write(apic::register::SPURIOUS, 0x1ff);
    apic::write(apic::register::TIMER_DIVIDE, 0b1011);
    apic::write(apic::register::LVT_TIMER, PERIODIC | u32::from(VECTOR));
    apic::write(apic::register::TIMER_INITIAL, PERIOD);
    nested.call(call);
    let mut is_gone = false;
    let reason = after_interrupts(nested, |nested| {
        if nested.read(vmcs::GUEST_RIP) == pal.entry() && !is_gone {
            is_gone = true;
            ept.unmap(BUFFER);
            invalidate();
        }
    });
    apic::write(apic::register::LVT_TIMER, MASKED | u32::from(VECTOR));
    apic::write(apic::register::TIMER_INITIAL, 0);
    check!(is_gone, "an interrupt met the PAL");
    check_eq!(reason, ExitReason::EPT_VIOLATION, "the end of the call");
    check_eq!(nested.read(vmcs::GUEST_PHYSICAL_ADDRESS) & !0xfff, BUFFER, "the page that lacks");
    check_eq!(nested.read(vmcs::GUEST_RIP), pal.entry(), "the caller stands at the entry");
    ept.map(BUFFER, BUFFER, ALL);
    // The timer may have left an interrupt behind.
    let reason = after_interrupts(nested, |_| {});
    check!(reason == ExitReason::VMCALL && nested.has_ended(), "ends with {}", reason.name());
    check_eq!(
        (RESULT.load(Ordering::SeqCst), read64(BUFFER)),
        (ROUNDS, Ok(5 + 2 * ROUNDS)),
        "the late return"
    );
}

/// Runs the guest's guest until an exit that is no external interrupt; after each of those `act` is called.
fn after_interrupts(nested: &mut Guest, mut act: impl FnMut(&mut Guest)) -> ExitReason {
    loop {
        let reason = nested.run();
        if reason != ExitReason::EXTERNAL_INTERRUPT {
            return reason;
        }
        apic::end_of_interrupt();
        act(nested);
    }
}

fn invalidate() {
    check_eq!(instruction::invept(2, [0, 0]), Ok(()), "INVEPT of all");
}

/// Has the guest's guest give a command from ring 3.
fn command(nested: &mut Guest, command: Command, [rcx, rdx, rsi, rdi]: [u64; 4]) {
    let rax = u64::from(command.0 + NESTED_OFFSET);
    let regs = Regs { rax, rcx, rdx, rsi, rdi, rflags: pal::IF, ..Regs::default() };
    trial::begin(nested, Mode::User64, vmcall(), regs);
}

fn vmcall() -> Snippet {
    snippet!("vmcall")
}

/// The next exit asks for `access` to `page`, where `given` is allowed.
fn asks(nested: &mut Guest, page: u64, access: u64, given: u64) {
    check_eq!(nested.run(), ExitReason::EPT_VIOLATION, "the page {page:#x}");
    check_eq!(nested.read(vmcs::GUEST_PHYSICAL_ADDRESS) & !0xfff, page, "the page that lacks");
    let seen = nested.read(vmcs::EXIT_QUALIFICATION) & 0xfff;
    check_eq!(seen, access | given << 3, "qualification for {page:#x}");
    check_eq!(nested.read(vmcs::IDT_VECTORING_INFORMATION) >> 31, 0, "nothing was being delivered");
}

fn ends(nested: &mut Guest) {
    let reason = nested.run();
    check!(reason == ExitReason::VMCALL && nested.has_ended(), "ends with {}", reason.name());
}

fn finishes(nested: &mut Guest, what: &str) {
    ends(nested);
    let (outcome, regs) = trial::result();
    check_eq!((outcome, regs.eax()), (Ok(()), 0), "{what}");
}

extern "C" fn register() {
    pal::bear_offset(true);
    RESULT.store(Pal::place(Mode::User64, 0, code()).register(&PARAMETERS).into(), Ordering::SeqCst);
    pal::bear_offset(false);
}

extern "C" fn call() {
    let pal = Pal { at: pal::PALS, mode: Mode::User64 };
    let seen = pal.call([ROUNDS, USER_BASE + BUFFER, 0, 0, 0, 0, 0, 0, 0, 0]);
    RESULT.store(seen.map_or(u64::MAX, |regs| regs.rax), Ordering::SeqCst);
}

/// Adds 1 to the word at RSI as often as RDI says.
fn code() -> Snippet {
    snippet!("mov rax, rdi", "2: add qword ptr [rsi], 1", "dec rdi", "jnz 2b", "ret")
}
