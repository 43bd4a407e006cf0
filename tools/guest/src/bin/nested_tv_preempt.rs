//! A PAL of a guest's guest that runs for long: its hypervisor's interrupts and timer come in time, and see nothing.
//! hypapp: trustvisor
//! cmdline: pal_ticks=50000
//! bare: no
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};

use guest::pal;
use guest::pal::prelude::*;
use guest::trap::{Frame, handle};
use guest::vmx::Ept;
use guest::vmx::prelude::*;
use guest::{Regs, apic, cpu, run};
use x86::msr::Msr;
use x86::vmx::controls::{ExitControls, PinBasedControls};

guest!(main);

const VECTOR: u8 = 0x40;
const ROUNDS: u64 = 600_000;
const PERIOD: u32 = 150_000;
/// Ticks that interrupts wait for a PAL.
const SLICE: u64 = 50_000;
const PERIODIC: u32 = 1 << 17;
const MASKED: u32 = 1 << 16;
const INTEGERS: [(ParameterType, u64); 2] = [(ParameterType::Integer, 0); 2];

static RESULT: AtomicU64 = AtomicU64::new(0);
static TAKEN: AtomicU64 = AtomicU64::new(0);

fn main() {
    handle(VECTOR, Some(tick));
    apic::write(apic::register::SPURIOUS, 0x1ff);
    apic::write(apic::register::TIMER_DIVIDE, 0b1011);
    enter_operation();
    let ept = Ept::identity();
    let mut nested = Guest::new(call);
    check!(nested.add_pin(PinBasedControls::EXTERNAL_INTERRUPT_EXITING), "external-interrupt exiting");
    interrupts(&mut nested, "left pending", false);
    nested.use_ept(&ept);
    interrupts(&mut nested, "left pending, with EPT", false);
    check!(nested.add_exit(ExitControls::ACKNOWLEDGE_INTERRUPT_ON_EXIT), "acknowledging on exit");
    interrupts(&mut nested, "acknowledged", true);
    preemption_timer(&mut nested);
    leave_operation();
}

fn entry() -> u64 {
    pal::user(Mode::User64, pal::PALS)
}

/// L2.
extern "C" fn call() {
    pal::bear_offset(true);
    let pal = Pal::place(Mode::User64, 0, counter());
    check_eq!(pal.register(&INTEGERS), 0, "registering");
    let seen = pal.call([ROUNDS, 5, 0, 0, 0, 0, 0, 0, 0, 0]).map_or(0, |regs| regs.rax + (regs.rflags & CF));
    RESULT.store(seen, Ordering::SeqCst);
    check_eq!(pal.unregister(), 0, "unregistering");
    pal::bear_offset(false);
}

fn interrupts(nested: &mut Guest, what: &str, is_acknowledged: bool) {
    TAKEN.store(0, Ordering::SeqCst);
    start_timer();
    nested.call(call);
    let (mut at_entry, mut longest, mut last) = (0, 0, None);
    loop {
        let reason = nested.run();
        if reason != ExitReason::EXTERNAL_INTERRUPT {
            check!(reason == ExitReason::VMCALL && nested.has_ended(), "{what}: ends with {}", reason.name());
            break;
        }
        let now = cpu::rdtsc();
        let is_at_entry = sees_nothing(nested, what);
        if is_at_entry {
            at_entry += 1;
            // From one interrupt in the PAL to the next.
            longest = last.map_or(0, |last| now - last).max(longest);
        }
        last = is_at_entry.then_some(now);
        if is_acknowledged {
            let vector = nested.read(vmcs::EXIT_INTERRUPTION_INFORMATION);
            check_eq!(vector, 1 << 31 | u32::from(VECTOR), "{what}: the interrupt");
            apic::end_of_interrupt();
            TAKEN.fetch_add(1, Ordering::SeqCst);
        } else {
            take_pending(what);
        }
    }
    stop_timer();
    take_pending(what);
    check_eq!(RESULT.load(Ordering::SeqCst), ROUNDS * 5, "{what}: the result");
    check!(at_entry >= 5, "{what}: {at_entry} interrupts met the PAL");
    check!(TAKEN.load(Ordering::SeqCst) >= at_entry, "{what}: interrupts taken");
    check!(longest < u64::from(PERIOD) + 3 * SLICE, "{what}: {longest} ticks between interrupts");
    guest::println!("{what}: ticks between interrupts at most {longest}, {at_entry} met the PAL");
}

/// Has this CPU take the interrupt that is pending, if one is.
fn take_pending(what: &str) {
    let seen = run(Mode::Kernel64, snippet!("sti", "nop", "nop", "cli"), &mut Regs::default());
    check_eq!(seen, Ok(()), "{what}: taking an interrupt");
}

/// Whether the exit found the caller at the entry, where no register is the PAL's.
fn sees_nothing(nested: &Guest, what: &str) -> bool {
    let registers = &nested.registers;
    let general = [registers.rax, registers.rbx, registers.rdx, registers.rbp, registers.r8, registers.r9];
    let is_mark = |register: &u64| *register & 0xffff_ffff == 0x5ec2_e700;
    check!(!general.iter().any(is_mark), "{what}: a register of the PAL's");
    let rip = nested.read(vmcs::GUEST_RIP);
    check!(
        rip == entry() || !(entry()..entry() + 4096).contains(&rip),
        "{what}: inside the PAL, at {rip:#x}"
    );
    rip == entry()
}

/// The hypervisor's own timer goes on while its guest's PAL runs.
fn preemption_timer(nested: &mut Guest) {
    let ticks = 1_000_000;
    if !nested.add_pin(PinBasedControls::PREEMPTION_TIMER) {
        return;
    }
    let shift = cpu::rdmsr(Msr::IA32_VMX_MISC).unwrap_or(0) & 0x1f;
    nested.call(call);
    nested.write(vmcs::PREEMPTION_TIMER, guest::memory::low(ticks >> shift));
    let begin = cpu::rdtsc();
    check_eq!(nested.run(), ExitReason::PREEMPTION_TIMER, "the timer's exit");
    let elapsed = cpu::rdtsc() - begin;
    // It stands while the hypervisor beneath works, for the registration most of all.
    check!((ticks - 1000..ticks + ticks / 2).contains(&elapsed), "the timer's exit after {elapsed} ticks");
    check!(sees_nothing(nested, "preemption timer"), "it met the PAL");
    nested.remove(vmcs::PIN_BASED_CONTROLS, PinBasedControls::PREEMPTION_TIMER.bits());
    check_eq!(nested.run(), ExitReason::VMCALL, "the end");
    check_eq!(RESULT.load(Ordering::SeqCst), ROUNDS * 5, "the result");
}

fn start_timer() {
    apic::write(apic::register::LVT_TIMER, PERIODIC | u32::from(VECTOR));
    apic::write(apic::register::TIMER_INITIAL, PERIOD);
}

fn stop_timer() {
    apic::write(apic::register::LVT_TIMER, MASKED | u32::from(VECTOR));
    apic::write(apic::register::TIMER_INITIAL, 0);
}

fn tick(_frame: &mut Frame) -> bool {
    TAKEN.fetch_add(1, Ordering::SeqCst);
    apic::end_of_interrupt();
    true
}

/// The PAL keeps a mark in registers that its caller has for itself.
fn counter() -> Snippet {
    snippet!(
        "mov ebx, 0x5ec2e700",
        "mov ebp, ebx",
        "mov r8d, ebx",
        "mov r9d, ebx",
        "mov edx, ebx",
        "xor eax, eax",
        "2: add rax, rsi",
        "dec rdi",
        "jnz 2b",
        "ret"
    )
}
