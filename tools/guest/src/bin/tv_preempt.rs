//! A PAL that runs for long: interrupts and NMIs come in time, see its caller at the entry, and it goes on.
//! cmdline: pal_ticks=50000
//! hypapp: trustvisor
//! bare: no
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};

use guest::pal;
use guest::pal::prelude::*;
use guest::trap::{Frame, handle};
use guest::{apic, cpu};
use trustvisor::call::Failure;

guest!(main);

const VECTOR: u8 = 0x40;
const ROUNDS: u64 = 1_000_000;
const PERIOD: u32 = 150_000;
const PERIODIC: u32 = 1 << 17;
const MASKED: u32 = 1 << 16;
const INTEGERS: [(ParameterType, u64); 2] = [(ParameterType::Integer, 0); 2];
static ENTRY: AtomicU64 = AtomicU64::new(0);
/// Interrupts that came at the entry, and of those that saw a register which only the PAL could have set.
static AT_ENTRY: AtomicU64 = AtomicU64::new(0);
static WITH_SECRET: AtomicU64 = AtomicU64::new(0);
/// Longest time between two interrupts.
static LONGEST: AtomicU64 = AtomicU64::new(0);
static LAST: AtomicU64 = AtomicU64::new(0);
static NESTED: AtomicU64 = AtomicU64::new(0);

fn main() {
    handle(VECTOR, Some(tick));
    handle(2, Some(nmi));
    apic::write(apic::register::SPURIOUS, 0x1ff);
    apic::write(apic::register::TIMER_DIVIDE, 0b1011);
    for (mode, code) in [(Mode::User64, counter64()), (Mode::CompatibilityUser32, counter32())] {
        let pal = Pal::place(mode, 0, code);
        check_eq!(pal.register(&INTEGERS), 0, "{mode:?}: registering");
        ENTRY.store(pal.entry(), Ordering::SeqCst);
        goes_on(&pal, mode);
        check_eq!(pal.unregister(), 0, "{mode:?}: unregistering");
    }
    endless_one_is_given_up();
}

fn goes_on(pal: &Pal, mode: Mode) {
    for counter in [&AT_ENTRY, &WITH_SECRET, &LONGEST] {
        counter.store(0, Ordering::SeqCst);
    }
    LAST.store(cpu::rdtsc(), Ordering::SeqCst);
    start_timer(PERIOD);
    let seen =
        pal.call([ROUNDS, 5, 0, 0, 0, 0, 0, 0, 0, 0]).map(|regs| (regs.rax, regs.rflags & CF, regs.rcx));
    stop_timer();
    check_eq!(seen, Ok((ROUNDS * 5, 0, 0)), "{mode:?}: the result");
    let interrupts = AT_ENTRY.load(Ordering::SeqCst);
    check!(interrupts >= 5, "{mode:?}: {interrupts} interrupts met the PAL");
    check_eq!(WITH_SECRET.load(Ordering::SeqCst), 0, "{mode:?}: interrupts that saw the PAL's registers");
    let longest = LONGEST.load(Ordering::SeqCst);
    check!(longest < u64::from(PERIOD) + 2 * 50_000 + 50_000, "{mode:?}: {longest} ticks between interrupts");
    guest::println!("ticks between interrupts at most {longest}, {interrupts} interrupts");
}

/// A thread that never comes back to its PAL: the process can unregister it all the same, and nothing is left.
fn endless_one_is_given_up() {
    let pal = Pal::place(Mode::User64, 1, snippet!("mov [rsi], rsi", "2: jmp 2b"));
    check_eq!(pal.register(&INTEGERS), 0, "registering the endless one");
    ENTRY.store(pal.entry(), Ordering::SeqCst);
    handle(VECTOR, Some(leave));
    start_timer(PERIOD);
    let data = pal.entry() + PAGE;
    let left = pal.call([0, data, 0, 0, 0, 0, 0, 0, 0, 0]).map(|_| ());
    stop_timer();
    check_eq!(left.map_err(|fault| fault.vector), Err(VECTOR), "the interrupt's handler does not return");
    // Another stack pointer is another thread.
    let other = snippet!("sub rsp, 64", "call r15", "lea rsp, [rsp + 64]");
    let mut regs = guest::Regs { r15: pal.entry(), rflags: pal::IF, ..guest::Regs::default() };
    check_eq!(guest::run(Mode::User64, other, &mut regs), Ok(()), "another thread's call");
    check_eq!((regs.eax(), regs.rflags & CF), (Failure::BUSY.0, CF), "another thread is told");
    check_eq!(pal.unregister(), 0, "unregistering a suspended PAL");
    check_eq!(guest::memory::read64(pal.data()), Ok(0), "it leaves nothing");
    check_eq!(pal.unregister(), Status::NOT_REGISTERED.0, "unregistering it again");
}

fn start_timer(period: u32) {
    apic::write(apic::register::LVT_TIMER, PERIODIC | u32::from(VECTOR));
    apic::write(apic::register::TIMER_INITIAL, period);
}

fn stop_timer() {
    apic::write(apic::register::LVT_TIMER, MASKED | u32::from(VECTOR));
    apic::write(apic::register::TIMER_INITIAL, 0);
}

fn tick(frame: &mut Frame) -> bool {
    let now = cpu::rdtsc();
    LONGEST.fetch_max(now - LAST.swap(now, Ordering::SeqCst), Ordering::SeqCst);
    look(frame);
    // Every other one brings an NMI with it, which meets the PAL where it goes on.
    if AT_ENTRY.load(Ordering::SeqCst) % 2 == 1 {
        apic::nmi(apic::id());
    }
    apic::end_of_interrupt();
    true
}

fn nmi(frame: &mut Frame) -> bool {
    NESTED.fetch_add(1, Ordering::SeqCst);
    look(frame);
    true
}

fn leave(_frame: &mut Frame) -> bool {
    apic::end_of_interrupt();
    false
}

/// The PAL keeps a mark in every register that its caller does not.
fn look(frame: &Frame) {
    if frame.rip == ENTRY.load(Ordering::SeqCst) {
        AT_ENTRY.fetch_add(1, Ordering::SeqCst);
        let registers =
            [frame.rax, frame.rbx, frame.rdx, frame.rbp, frame.r8, frame.r9, frame.r10, frame.r11];
        let is_mark = |register: &u64| *register & 0xffff_ffff == 0x5ec2_e700;
        if registers.iter().any(is_mark) || frame.rsp & 0xfff == 0xff8 {
            WITH_SECRET.fetch_add(1, Ordering::SeqCst);
        }
    }
}

fn counter64() -> Snippet {
    snippet!(
        "mov ebx, 0x5ec2e700",
        "mov ebp, ebx",
        "mov r8d, ebx",
        "mov r9d, ebx",
        "mov r10d, ebx",
        "mov r11d, ebx",
        "mov edx, ebx",
        "xor eax, eax",
        "2: add rax, rsi",
        "dec rdi",
        "jnz 2b",
        "ret"
    )
}

fn counter32() -> Snippet {
    snippet!(code32:
        "mov ecx, [esp + 4]",
        "mov edi, [esp + 8]",
        "mov ebx, 0x5ec2e700",
        "mov ebp, ebx",
        "mov edx, ebx",
        "xor eax, eax",
        "2: add eax, edi",
        "dec ecx",
        "jnz 2b",
        "ret"
    )
}
