//! Control merge: time of a guest's guest: TSC offset and scaling, preemption timer with its saved value, PAUSE loops, XSAVES.
//! model: corei7_skylake_x
#![no_std]
#![no_main]

use guest::cpu::{cpuid, rdtsc, read_cr4, write_cr4};
use guest::vmx::prelude::*;
use guest::vmx::{allocate, trial};
use guest::{Fault, Mode, Regs, Snippet, snippet};
use x86::vmx::controls::{ExitControls, PinBasedControls, PrimaryControls, SecondaryControls};

guest!(main);

const DONE: ExitReason = ExitReason::VMCALL;
const TIMER: u32 = 100_000;
const ONE: u64 = 1 << 48;

fn main() {
    enter_operation();
    time_stamps();
    preemption_timer();
    pause_loops();
    state_components();
    leave_operation();
}

fn run(nested: &mut Guest, mode: Mode, code: Snippet, regs: Regs) -> ExitReason {
    trial::begin(nested, mode, code, regs);
    nested.run()
}

/// What the guest reads is the counter, scaled, and then the offset added.
fn time_stamps() {
    for (multiplier, offset) in [
        (None, 0),
        (None, 1 << 40),
        (None, 0_u64.wrapping_sub(1 << 30)),
        (Some(2 * ONE), 0),
        (Some(ONE / 2), 1 << 50),
    ] {
        for code in [snippet!("rdtsc"), snippet!("rdtscp"), snippet!("mov ecx, 0x10", "rdmsr")] {
            let mut nested = Guest::new(trial::perform);
            check!(nested.add_primary(PrimaryControls::USE_TSC_OFFSETTING), "TSC offsetting");
            check!(nested.add_secondary(SecondaryControls::ENABLE_RDTSCP), "RDTSCP");
            nested.write(vmcs::TSC_OFFSET, offset);
            if let Some(multiplier) = multiplier {
                check!(nested.add_secondary(SecondaryControls::USE_TSC_SCALING), "TSC scaling");
                nested.write(vmcs::TSC_MULTIPLIER, multiplier);
            }
            let seen = |tsc: u64| {
                let scaled = (u128::from(tsc) * u128::from(multiplier.unwrap_or(ONE))) >> 48;
                u64::try_from(scaled).unwrap_or_default().wrapping_add(offset)
            };
            let first = seen(rdtsc());
            check_eq!(run(&mut nested, Mode::Kernel64, code, Regs::default()), DONE, "reading the counter");
            let last = seen(rdtsc());
            let (result, regs) = trial::result();
            check_eq!(result, Ok(()), "reading the counter");
            let value = regs.rdx << 32 | regs.rax & 0xffff_ffff;
            let is_between = value.wrapping_sub(first) <= last.wrapping_sub(first);
            check!(is_between, "{multiplier:x?} {offset:#x}: {first:#x} {value:#x} {last:#x}");
        }
    }
}

/// The timer runs down while the guest runs, and what is left is saved where that is asked for.
fn preemption_timer() {
    let endless: [(&str, Snippet); 2] = [
        ("a loop", snippet!("2:", "jmp 2b")),
        // Reads of a port that the hypervisor beneath serves wind nothing up.
        ("a loop of exits", snippet!("mov edx, 0x92", "2:", "in al, dx", "jmp 2b")),
    ];
    for saves in [false, true] {
        let mut nested = Guest::new(trial::perform);
        check!(nested.add_pin(PinBasedControls::PREEMPTION_TIMER), "preemption timer");
        if saves {
            check!(nested.add_exit(ExitControls::SAVE_PREEMPTION_TIMER), "saving of the timer");
        }
        for (name, code) in endless {
            nested.write(vmcs::PREEMPTION_TIMER, TIMER);
            let reason = run(&mut nested, Mode::Kernel64, code, Regs::default());
            check_eq!(reason, ExitReason::PREEMPTION_TIMER, "{name}, saved {saves}");
            let left = nested.read(vmcs::PREEMPTION_TIMER);
            check_eq!(left, if saves { 0 } else { TIMER }, "{name}: timer after it, saved {saves}");
        }
        nested.write(vmcs::PREEMPTION_TIMER, TIMER);
        check_eq!(run(&mut nested, Mode::Kernel64, snippet!("nop"), Regs::default()), DONE, "an end in time");
        let left = nested.read(vmcs::PREEMPTION_TIMER);
        check!(if saves { left > 0 && left < TIMER } else { left == TIMER }, "{left} left, saved {saves}");
        nested.write(vmcs::PREEMPTION_TIMER, 0);
        let reason = run(&mut nested, Mode::Kernel64, snippet!("nop"), Regs::default());
        check_eq!(reason, ExitReason::PREEMPTION_TIMER, "a timer of 0");
        check_eq!(nested.read(vmcs::GUEST_RIP), trial::perform as *const () as u64, "before any instruction");
    }
}

/// PAUSE in a loop leaves at CPL 0 alone.
fn pause_loops() {
    let mut nested = Guest::new(trial::perform);
    check!(nested.add_secondary(SecondaryControls::PAUSE_LOOP_EXITING), "PAUSE-loop exiting");
    nested.write(vmcs::PLE_GAP, 1000);
    nested.write(vmcs::PLE_WINDOW, 4000);
    let code = snippet!("mov ecx, 100000", "2:", "pause", "dec ecx", "jnz 2b");
    check_eq!(run(&mut nested, Mode::Kernel64, code, Regs::default()), ExitReason::PAUSE, "a loop at CPL 0");
    check_eq!(run(&mut nested, Mode::User64, code, Regs::default()), DONE, "a loop at CPL 3");
    check_eq!(trial::result().0, Ok(()), "a loop at CPL 3");
    let few = snippet!("pause", "pause");
    check_eq!(run(&mut nested, Mode::Kernel64, few, Regs::default()), DONE, "no loop");
}

/// XSAVES is there where the hypervisor lets the guest have it.
fn state_components() {
    if cpuid(0xd, 1).eax >> 3 & 1 == 0 {
        return;
    }
    check_eq!(write_cr4(read_cr4() | 1 << 18), Ok(()), "OSXSAVE");
    let area = allocate();
    let code = snippet!("mov eax, 1", "xor edx, edx", "xsaves [rdi]", "xrstors [rdi]");
    for is_wanted in [false, true] {
        let mut nested = Guest::new(trial::perform);
        if is_wanted {
            check!(nested.add_secondary(SecondaryControls::ENABLE_XSAVES), "XSAVES");
            // Bits that IA32_XSS does not have cause no exit.
            nested.write(vmcs::XSS_EXITING_BITMAP, !0);
        }
        let regs = Regs { rdi: area, ..Regs::default() };
        check_eq!(run(&mut nested, Mode::Kernel64, code, regs), DONE, "XSAVES, wanted {is_wanted}");
        let expected = if is_wanted { Ok(()) } else { Err(Fault::UD) };
        check_eq!(trial::result().0, expected, "XSAVES, wanted {is_wanted}");
    }
    check_eq!(write_cr4(read_cr4() & !(1 << 18)), Ok(()), "OSXSAVE");
}
