//! TrustVisor from a guest's guest: its PALs are registered and called, and its hypervisor hears of nothing.
//! hypapp: trustvisor
//! bare: no
#![no_std]
#![no_main]

use guest::pal;
use guest::pal::prelude::*;
use guest::vmx::prelude::*;
use guest::vmx::{Ept, trial};
use guest::{Fault, Regs, cpu};
use spin::Mutex;
use trustvisor::call::Failure;
use trustvisor::command::{Command, NESTED_OFFSET};
use trustvisor::probe;
use x86::vmx::controls::PrimaryControls;

guest!(main);

const PARAMETERS: [(ParameterType, u64); 2] = [(ParameterType::Integer, 0), (ParameterType::Pointer, 2)];
/// What a call is passed by address.
const BUFFER: u64 = guest::memory::FREE + 0x8000;
const ROUNDS: u64 = 3;
/// ECX of the leaf, as the guest's guest sees it.
static TABLES: Mutex<u32> = Mutex::new(0);

fn main() {
    enter_operation();
    let ept = Ept::identity();
    let mut nested = Guest::new(calls);
    passes(&mut nested, "without EPT");
    nested.use_ept(&ept);
    *TABLES.lock() = probe::CALLER_HAS_NESTED_TABLES;
    nested.call(calls);
    passes(&mut nested, "with EPT");
    // What a hypervisor may want to know of its guest is nothing of a PAL's.
    let curious =
        PrimaryControls::RDTSC_EXITING | PrimaryControls::PAUSE_EXITING | PrimaryControls::RDPMC_EXITING;
    check!(nested.add_primary(curious), "the processor can exit for RDTSC");
    nested.write(vmcs::EXCEPTION_BITMAP, u32::MAX);
    nested.call(calls_curious);
    passes(&mut nested, "under a curious hypervisor");
    nested.remove(vmcs::PRIMARY_CONTROLS, curious.bits());
    nested.write(vmcs::EXCEPTION_BITMAP, 0);
    without_offset(&mut nested);
    of_the_hypervisor();
    leave_operation();
}

/// One exit: the end.
fn passes(nested: &mut Guest, what: &str) {
    pal::bear_offset(true);
    let reason = nested.run();
    pal::bear_offset(false);
    check!(reason == ExitReason::VMCALL && nested.has_ended(), "{what}: the first exit is {}", reason.name());
}

extern "C" fn calls() {
    check!(pal::is_present(), "TrustVisor is there");
    let leaf = cpu::cpuid(probe::LEAF, NESTED_OFFSET);
    check_eq!(leaf.ebx, probe::NOT_IN_PAL, "outside a PAL");
    check_eq!(leaf.ecx, probe::CALLER_IS_64_BIT | *TABLES.lock(), "what the leaf says of the caller");
    for (mode, code, teller) in
        [(Mode::User64, code64(), number64()), (Mode::CompatibilityUser32, code32(), number32())]
    {
        check_eq!(pal::hypercall(mode, Command::TEST.0, [0x42, 0, 0, 0]), 0, "the test hypercall");
        check_eq!(pal::hypercall(mode, 77, [0; 4]), Status::UNKNOWN_COMMAND.0, "an unknown hypercall");
        check_eq!(pal::hypercall(mode, 7, [0; 4]), Status::NOT_IN_PAL.0, "a PAL's");
        for _ in 0..ROUNDS {
            one(mode, code);
        }
        let teller = Pal::place(mode, 1, teller);
        check_eq!(teller.register(&[]), 0, "{mode:?}: registering the teller");
        let number = teller.call([0; 10]).map(|regs| guest::memory::low(regs.rax));
        check!(number.is_ok_and(|number| number < probe::PAL_NUMBER_LIMIT), "{mode:?}: {number:x?} inside");
        check_eq!(teller.unregister(), 0, "{mode:?}: unregistering the teller");
    }
}

fn one(mode: Mode, code: Snippet) {
    let _ = guest::memory::write64(BUFFER, 0x1111_0000_0000_0005);
    let pal = Pal::place(mode, 0, code);
    check_eq!(pal.register(&PARAMETERS), 0, "{mode:?}: registering");
    check_eq!(pal.register(&PARAMETERS), Status::ALREADY_REGISTERED.0, "{mode:?}: registering again");
    for round in 1..=3 {
        let seen = pal.call([7, pal::user(mode, BUFFER), 0, 0, 0, 0, 0, 0, 0, 0]);
        let Ok(regs) = seen else {
            check!(false, "{mode:?}: the call faulted: {seen:?}");
            return;
        };
        check_eq!((regs.rax, regs.rflags & CF, regs.rcx, regs.rdx), (round, 0, 0, 0), "{mode:?}: the call");
        check_eq!([regs.rbx, regs.rbp], [0x2222_2222, 0x4444_4444], "{mode:?}: registers that are kept");
    }
    check_eq!(
        guest::memory::read64(BUFFER),
        Ok(0x1111_0000_0000_0005 + 3 * 7),
        "{mode:?}: what was passed by address"
    );
    let off =
        pal::call(mode, pal.entry(), [0; 10], 0).map(|regs| (guest::memory::low(regs.rax), regs.rflags & CF));
    check_eq!(off, Ok((Failure::INTERRUPTS_OFF.0, CF)), "{mode:?}: a call with interrupts off");
    check_eq!(pal.unregister(), 0, "{mode:?}: unregistering");
    check_eq!(pal.unregister(), Status::NOT_REGISTERED.0, "{mode:?}: unregistering again");
}

/// RDTSC, PAUSE and a fault inside a PAL.
extern "C" fn calls_curious() {
    let pal = Pal::place(Mode::User64, 2, snippet!("rdtsc", "pause", "mov eax, 0x77", "ret"));
    check_eq!(pal.register(&[]), 0, "registering");
    check_eq!(pal.call([0; 10]).map(|regs| (regs.rax, regs.rflags & CF)), Ok((0x77, 0)), "RDTSC in a PAL");
    check_eq!(pal.unregister(), 0, "unregistering");
    let bad = Pal::place(Mode::User64, 2, snippet!("ud2"));
    check_eq!(bad.register(&[]), 0, "registering the bad one");
    let seen = bad.call([0; 10]).map(|regs| (guest::memory::low(regs.rax), regs.rdx, regs.rflags & CF));
    check_eq!(seen, Ok((Failure::FAULTED.0, 6, CF)), "a fault in a PAL");
    check_eq!(bad.unregister(), 0, "unregistering the bad one");
}

/// Commands without the offset, and the leaf without it, are the hypervisor's.
fn without_offset(nested: &mut Guest) {
    for command in
        [u64::from(Command::TEST.0), u64::from(NESTED_OFFSET) - 1, u64::from(NESTED_OFFSET) + 0x100]
    {
        let regs = Regs { rax: command, rcx: 1, ..Regs::default() };
        trial::begin(nested, Mode::User64, snippet!("vmcall"), regs);
        check_eq!(nested.run(), ExitReason::VMCALL, "VMCALL with {command:#x}");
        check!(!nested.has_ended() && nested.registers.rax == command, "VMCALL with {command:#x}");
    }
    let regs = Regs { rax: probe::LEAF.into(), rcx: 0, ..Regs::default() };
    trial::begin(nested, Mode::User64, snippet!("cpuid"), regs);
    check_eq!(nested.run(), ExitReason::CPUID, "the leaf without the offset");
}

/// The hypervisor itself calls as any guest does, without the offset.
fn of_the_hypervisor() {
    check!(pal::is_present(), "TrustVisor is there for the hypervisor");
    check_eq!(pal::hypercall(Mode::User64, Command::TEST.0, [0x43, 0, 0, 0]), 0, "its own test hypercall");
    let with_offset = pal::hypercall(Mode::User64, NESTED_OFFSET + Command::TEST.0, [0; 4]);
    check_eq!(with_offset, Status::UNKNOWN_COMMAND.0, "with the offset");
    let pal = Pal::place(Mode::User64, 0, snippet!("mov eax, 5", "ret"));
    check_eq!(pal.register(&[]), 0, "a PAL of its own");
    check_eq!(pal.call([0; 10]).map(|regs| regs.rax), Ok(5), "a call of its own");
    check_eq!(pal.unregister(), 0, "unregistering its own");
    let fault = pal.call([0; 10]).map(|regs| regs.rax);
    check_eq!(fault, Ok::<u64, Fault>(5), "a plain function again");
}

/// Adds RDI to the word at RSI, and counts its calls in its data page, which begins with 0x90s.
fn code64() -> Snippet {
    snippet!(
        "add [rsi], rdi",
        "lea rdx, [rip + 0x1000]",
        "and rdx, -4096",
        "mov eax, [rdx + 8]",
        "cmp eax, 0x90909090",
        "jne 2f",
        "xor eax, eax",
        "2: inc eax",
        "mov [rdx + 8], eax",
        "ret"
    )
}

fn code32() -> Snippet {
    snippet!(code32:
        "mov ecx, [esp + 8]",
        "mov eax, [esp + 4]",
        "add [ecx], eax",
        "call 3f",
        "3: pop edx",
        "add edx, 0x1000",
        "and edx, -4096",
        "mov eax, [edx + 8]",
        "cmp eax, 0x90909090",
        "jne 2f",
        "xor eax, eax",
        "2: inc eax",
        "mov [edx + 8], eax",
        "ret"
    )
}

fn number64() -> Snippet {
    snippet!(
        "push rbx",
        "mov eax, 0x7a567254",
        "mov ecx, 0x4c415000",
        "cpuid",
        "mov eax, ebx",
        "pop rbx",
        "ret"
    )
}

fn number32() -> Snippet {
    snippet!(code32: "push ebx", "mov eax, 0x7a567254", "xor ecx, ecx", "cpuid", "mov eax, ebx", "pop ebx", "ret")
}
