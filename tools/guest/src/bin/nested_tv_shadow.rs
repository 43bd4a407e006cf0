//! TrustVisor under a hypervisor with shadow paging: what its tables lack is a page fault of its own, and work goes on.
//! hypapp: trustvisor
//! cmdline: pal_ticks=50000
//! bare: no
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};

use guest::cpu::{rdmsr_existing, read_cr3, wrmsr_existing};
use guest::memory::{FREE, read64, write64};
use guest::pal;
use guest::pal::prelude::*;
use guest::run::USER_BASE;
use guest::vmx::prelude::*;
use guest::vmx::{allocate, read, trial, write};
use guest::{Regs, apic, run};
use trustvisor::command::{Command, NESTED_OFFSET};
use x86::msr::Msr;
use x86::vmx::controls::{ExitControls, PinBasedControls};

guest!(main);

const PARAMETERS: [(ParameterType, u64); 2] = [(ParameterType::Integer, 0), (ParameterType::Pointer, 1)];
/// Two more than there are registers for.
const INTEGERS: [(ParameterType, u64); 8] = [(ParameterType::Integer, 0); 8];
/// The lists of a registration, a page each.
const SECTIONS: u64 = FREE;
const LIST: u64 = FREE + PAGE;
/// A word that is passed by address.
const BUFFER: u64 = FREE + 0x8000;
/// A caller's stack: the return address ends a page, the arguments begin another.
const RETURN: u64 = FREE + 0xa000;
const ARGUMENTS: u64 = FREE + 0xb000;
const ROUNDS: u64 = 200_000;
const VECTOR: u8 = 0x40;
const PERIOD: u32 = 150_000;
const PERIODIC: u32 = 1 << 17;
const MASKED: u32 = 1 << 16;
const PAGE_FAULT: u32 = 1 << 14;
const NXE: u64 = 1 << 11;
/// Rights in a table entry.
const ABSENT: u64 = 0;
const SUPERVISOR: u64 = 3;
const READ_ONLY: u64 = 5;
const ALL: u64 = 7;
const NO_EXECUTE: u64 = 1 << 63 | 7;
/// Bits of a page fault's error code: always in user mode.
const PRESENT: u32 = 1;
const WRITE: u32 = 2;
const USER: u32 = 4;
const FETCH: u32 = 16;
/// What the guest's guest has in CR2, which an exit leaves alone.
const CR2: u64 = 0x1234_5000;

static RESULT: AtomicU64 = AtomicU64::new(0);

fn main() {
    wrmsr_existing(Msr::IA32_EFER, rdmsr_existing(Msr::IA32_EFER) | NXE);
    enter_operation();
    let shadow = Shadow::new();
    let mut nested = Guest::new(register);
    nested.write(vmcs::GUEST_CR3, shadow.root);
    // Leaves the lists in memory.
    ends(&mut nested);
    check_eq!(RESULT.load(Ordering::SeqCst), 0, "registering where nothing lacks");
    unregisters(&mut nested);
    // Every page fault, and every one whose error code has not a bit that none has.
    for (bitmap, mask, value) in [(PAGE_FAULT, 0, 0), (0, 0x80, 0x80)] {
        wants(&mut nested, bitmap, mask, value);
        registration(&mut nested, &shadow);
        call_lacks_buffer(&mut nested, &shadow);
        unregistration(&mut nested, &shadow);
    }
    unwanted(&mut nested, &shadow);
    wants(&mut nested, PAGE_FAULT, 0, 0);
    stack(&mut nested, &shadow);
    while_it_runs(&mut nested, &shadow);
    leave_operation();
}

/// A hypervisor's page tables for its guest: those of this program, with 2 MiB of ring 3's in small pages.
struct Shadow {
    root: u64,
    table: u64,
}

impl Shadow {
    fn new() -> Self {
        let [root, pointers, directory, table] = [(); 4].map(|()| allocate());
        let copy = |from: u64, to: u64| {
            for offset in (0..PAGE).step_by(8) {
                write(to + offset, read(from + offset));
            }
        };
        let below = |entry: u64| read(entry) & 0xf_ffff_ffff_f000;
        copy(read_cr3() & !0xfff, root);
        let entry = root + (USER_BASE >> 39) * 8;
        copy(below(entry), pointers);
        copy(below(pointers), directory);
        write(entry, pointers | ALL);
        write(pointers, directory | ALL);
        write(directory + (FREE >> 21) * 8, table | ALL);
        let shadow = Self { root, table };
        for page in (FREE..FREE + (1 << 21)).step_by(4096) {
            shadow.give(page, ALL);
        }
        shadow
    }

    /// Gives the page with these rights, or takes it.
    fn give(&self, page: u64, rights: u64) {
        write(self.table + (page - FREE) / PAGE * 8, if rights == ABSENT { 0 } else { page | rights });
    }
}

fn the_pal() -> Pal {
    Pal { at: pal::PALS, mode: Mode::User64 }
}

fn wants(nested: &mut Guest, bitmap: u32, mask: u32, value: u32) {
    nested.write(vmcs::EXCEPTION_BITMAP, bitmap);
    nested.write(vmcs::PAGE_FAULT_ERROR_CODE_MASK, mask);
    nested.write(vmcs::PAGE_FAULT_ERROR_CODE_MATCH, value);
}

fn registration(nested: &mut Guest, shadow: &Shadow) {
    let pal = the_pal();
    let lacks = [
        (SECTIONS, ABSENT, USER),
        (LIST, SUPERVISOR, PRESENT | USER),
        (pal.at, NO_EXECUTE, PRESENT | USER | FETCH),
        (pal.data(), READ_ONLY, PRESENT | WRITE | USER),
        (pal.data() + PAGE, SUPERVISOR, PRESENT | WRITE | USER),
        (pal.data() + 2 * PAGE, ABSENT, WRITE | USER),
    ];
    for (page, given, _) in lacks {
        shadow.give(page, given);
    }
    begin_registration(nested);
    for (page, _, error_code) in lacks {
        let rip = asks(nested, page, error_code);
        check!(!(pal.entry()..pal.entry() + 4 * PAGE).contains(&rip), "it stands at its VMCALL: {rip:#x}");
        shadow.give(page, ALL);
    }
    finishes(nested, 0, "registering page by page");
}

fn begin_registration(nested: &mut Guest) {
    let user = |address| USER_BASE + address;
    command(nested, Command::REGISTER, [user(SECTIONS), 0, user(LIST), the_pal().entry()]);
}

fn call_lacks_buffer(nested: &mut Guest, shadow: &Shadow) {
    check_eq!(write64(BUFFER, 5), Ok(()), "the word");
    shadow.give(BUFFER, ABSENT);
    nested.call(call);
    check_eq!(asks(nested, BUFFER, WRITE | USER), the_pal().entry(), "the caller stands at the entry");
    shadow.give(BUFFER, READ_ONLY);
    check_eq!(asks(nested, BUFFER, PRESENT | WRITE | USER), the_pal().entry(), "and again");
    shadow.give(BUFFER, ALL);
    ends(nested);
    check_eq!((RESULT.load(Ordering::SeqCst), read64(BUFFER)), (ROUNDS, Ok(5 + ROUNDS)), "the call");
}

fn unregistration(nested: &mut Guest, shadow: &Shadow) {
    shadow.give(the_pal().at, ABSENT);
    command(nested, Command::UNREGISTER, [the_pal().entry(), 0, 0, 0]);
    asks(nested, the_pal().at, USER | FETCH);
    shadow.give(the_pal().at, ALL);
    finishes(nested, 0, "unregistering");
}

fn unregisters(nested: &mut Guest) {
    command(nested, Command::UNREGISTER, [the_pal().entry(), 0, 0, 0]);
    finishes(nested, 0, "unregistering");
}

/// Faults that the hypervisor leaves to its guest are told as they are to any process.
fn unwanted(nested: &mut Guest, shadow: &Shadow) {
    shadow.give(LIST, ABSENT);
    for (bitmap, mask, value, what) in
        [(0, 0, 0, "none"), (PAGE_FAULT, PRESENT, PRESENT, "of present pages"), (0, WRITE, 0, "of writes")]
    {
        wants(nested, bitmap, mask, value);
        begin_registration(nested);
        finishes(nested, Status::BAD_ADDRESS.0, what);
    }
    shadow.give(LIST, ALL);
    wants(nested, PAGE_FAULT, PRESENT, PRESENT);
    shadow.give(the_pal().data(), READ_ONLY);
    begin_registration(nested);
    asks(nested, the_pal().data(), PRESENT | WRITE | USER);
    shadow.give(the_pal().data(), ALL);
    finishes(nested, 0, "registering with faults of present pages");
    shadow.give(BUFFER, ABSENT);
    nested.call(call);
    ends(nested);
    check_eq!(RESULT.load(Ordering::SeqCst), u64::MAX, "a call whose pointer leads nowhere fails");
    shadow.give(BUFFER, ALL);
    unregisters(nested);
}

/// The caller's stack goes behind its back, a page at a time.
fn stack(nested: &mut Guest, shadow: &Shadow) {
    nested.call(register_sum);
    ends(nested);
    check_eq!(RESULT.load(Ordering::SeqCst), 0, "registering a PAL with ten arguments");
    check_eq!((write64(ARGUMENTS, 40), write64(ARGUMENTS + 8, 2)), (Ok(()), Ok(())), "its arguments");
    shadow.give(ARGUMENTS, ABSENT);
    nested.call(call_sum);
    check_eq!(asks(nested, ARGUMENTS, USER), the_pal().entry(), "the caller stands at the entry");
    shadow.give(RETURN, ABSENT);
    check_eq!(asks(nested, RETURN, USER), the_pal().entry(), "the return address");
    shadow.give(RETURN, ALL);
    check_eq!(asks(nested, ARGUMENTS, USER), the_pal().entry(), "the arguments again");
    shadow.give(ARGUMENTS, ALL);
    ends(nested);
    check_eq!(RESULT.load(Ordering::SeqCst), 42, "what the PAL made of its stack");
    unregisters(nested);
}

/// The page of a result goes while the PAL runs: the return waits for it.
fn while_it_runs(nested: &mut Guest, shadow: &Shadow) {
    begin_registration_anew(nested);
    check!(nested.add_pin(PinBasedControls::EXTERNAL_INTERRUPT_EXITING), "external-interrupt exiting");
    check!(nested.add_exit(ExitControls::ACKNOWLEDGE_INTERRUPT_ON_EXIT), "acknowledging on exit");
    apic::write(apic::register::SPURIOUS, 0x1ff);
    apic::write(apic::register::TIMER_DIVIDE, 0b1011);
    apic::write(apic::register::LVT_TIMER, PERIODIC | u32::from(VECTOR));
    apic::write(apic::register::TIMER_INITIAL, PERIOD);
    check_eq!(write64(BUFFER, 5), Ok(()), "the word");
    nested.call(call);
    let mut is_gone = false;
    let reason = after_interrupts(nested, |nested| {
        if nested.read(vmcs::GUEST_RIP) == the_pal().entry() && !is_gone {
            is_gone = true;
            shadow.give(BUFFER, ABSENT);
        }
    });
    apic::write(apic::register::LVT_TIMER, MASKED | u32::from(VECTOR));
    apic::write(apic::register::TIMER_INITIAL, 0);
    check!(is_gone, "an interrupt met the PAL");
    check_eq!(is_asked(nested, reason, BUFFER, WRITE | USER), the_pal().entry(), "the end of the call");
    shadow.give(BUFFER, ALL);
    // The timer may have left an interrupt behind.
    let reason = after_interrupts(nested, |_| {});
    check!(reason == ExitReason::VMCALL && nested.has_ended(), "ends with {}", reason.name());
    check_eq!((RESULT.load(Ordering::SeqCst), read64(BUFFER)), (ROUNDS, Ok(5 + ROUNDS)), "the late return");
}

fn begin_registration_anew(nested: &mut Guest) {
    nested.call(register);
    ends(nested);
    check_eq!(RESULT.load(Ordering::SeqCst), 0, "registering once more");
}

/// Runs the guest's guest until an exit that is no external interrupt; after each of those `act` is called.
fn after_interrupts(nested: &mut Guest, mut act: impl FnMut(&mut Guest)) -> ExitReason {
    loop {
        nested.registers.cr2 = CR2;
        let reason = nested.run();
        if reason != ExitReason::EXTERNAL_INTERRUPT {
            return reason;
        }
        apic::end_of_interrupt();
        act(nested);
    }
}

/// Has the guest's guest give a command from ring 3.
fn command(nested: &mut Guest, command: Command, [rcx, rdx, rsi, rdi]: [u64; 4]) {
    let rax = u64::from(command.0 + NESTED_OFFSET);
    let regs = Regs { rax, rcx, rdx, rsi, rdi, rflags: pal::IF, ..Regs::default() };
    trial::begin(nested, Mode::User64, snippet!("vmcall"), regs);
}

/// The next exit is the page fault of an access to `page`; gives where the guest's guest stands.
fn asks(nested: &mut Guest, page: u64, error_code: u32) -> u64 {
    nested.registers.cr2 = CR2;
    let reason = nested.run();
    is_asked(nested, reason, page, error_code)
}

fn is_asked(nested: &Guest, reason: ExitReason, page: u64, error_code: u32) -> u64 {
    check_eq!(reason, ExitReason::EXCEPTION_OR_NMI, "the page {page:#x}");
    let event = nested.read(vmcs::EXIT_INTERRUPTION_INFORMATION);
    check_eq!(event, 0x8000_0b0e, "a page fault for {page:#x}");
    let seen = nested.read(vmcs::EXIT_INTERRUPTION_ERROR_CODE);
    check_eq!(seen, error_code, "error code for {page:#x}");
    let address = nested.read(vmcs::EXIT_QUALIFICATION);
    check_eq!(address & !0xfff, USER_BASE + page, "the address");
    check_eq!(nested.registers.cr2, CR2, "CR2 at the exit");
    check_eq!(nested.read(vmcs::IDT_VECTORING_INFORMATION) >> 31, 0, "nothing was being delivered");
    nested.read(vmcs::GUEST_RIP)
}

fn ends(nested: &mut Guest) {
    let reason = nested.run();
    check!(reason == ExitReason::VMCALL && nested.has_ended(), "ends with {}", reason.name());
}

fn finishes(nested: &mut Guest, status: u32, what: &str) {
    ends(nested);
    let (outcome, regs) = trial::result();
    check_eq!((outcome, regs.eax()), (Ok(()), status), "{what}");
}

/// L2.
extern "C" fn register() {
    pal::bear_offset(true);
    RESULT.store(Pal::place(Mode::User64, 0, code()).register(&PARAMETERS).into(), Ordering::SeqCst);
    pal::bear_offset(false);
}

extern "C" fn register_sum() {
    pal::bear_offset(true);
    let code = snippet!("mov rax, [rsp + 8]", "add rax, [rsp + 16]", "ret");
    RESULT.store(Pal::place(Mode::User64, 0, code).register(&INTEGERS).into(), Ordering::SeqCst);
    pal::bear_offset(false);
}

extern "C" fn call() {
    let seen = the_pal().call([ROUNDS, USER_BASE + BUFFER, 0, 0, 0, 0, 0, 0, 0, 0]);
    let result = seen.map_or(u64::MAX, |regs| if regs.rflags & CF == 0 { regs.rax } else { u64::MAX });
    RESULT.store(result, Ordering::SeqCst);
}

extern "C" fn call_sum() {
    let (r14, r15) = (USER_BASE + ARGUMENTS, the_pal().entry());
    let mut regs = Regs { r14, r15, rflags: pal::IF, ..Regs::default() };
    let seen = run(Mode::User64, snippet!("mov rsp, r14", "call r15"), &mut regs);
    RESULT.store(if seen.is_ok() { regs.rax } else { u64::MAX }, Ordering::SeqCst);
}

/// Adds 1 to the word at RSI as often as RDI says.
fn code() -> Snippet {
    snippet!("mov rax, rdi", "2: add qword ptr [rsi], 1", "dec rdi", "jnz 2b", "ret")
}
