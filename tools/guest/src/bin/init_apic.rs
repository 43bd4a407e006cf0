//! INIT resets the local APIC but for its ID: software-disabled, masked, idle, with nothing in service.
//! cpus: 2
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicUsize, Ordering};
use guest::apic::{self, register};
use guest::cpu::wait_until;
use guest::trap::{Frame, handle};
use guest::{Mode, Regs, check, check_eq, guest, run, smp, snippet};

guest!(main);

const VECTOR: u8 = 0x50;
static TAKEN: AtomicUsize = AtomicUsize::new(0);

fn main() {
    handle(VECTOR, Some(note));
    for round in 1..=2 {
        check!(smp::start_others(1), "start of the other CPU, round {round}");
        reset_state();
        check!(smp::run_on(1, use_apic), "the other CPU uses its local APIC");
        check_eq!(TAKEN.load(Ordering::SeqCst), round, "interrupts taken");
    }
}

/// SDM, "Local APIC State After It Receives an INIT Reset".
fn reset_state() {
    for (register, value) in smp::APIC_STATE.into_iter().zip(smp::apic_state()) {
        let expected = match register {
            register::SPURIOUS => 0xff,
            register::DFR => 0xffff_ffff,
            register::LVT_TIMER | register::LVT_LINT0 | register::LVT_LINT1 | register::LVT_ERROR => 0x1_0000,
            _ => 0,
        };
        check_eq!(value, expected, "register {register:#x} after INIT");
    }
}

/// Leaves everything as INIT would not: an interrupt in service, another priority, a timer that runs.
fn use_apic() {
    apic::write(register::LDR, 2 << 24);
    apic::write(register::DFR, 0x0fff_ffff);
    for lvt in [register::LVT_LINT0, register::LVT_LINT1, register::LVT_ERROR] {
        apic::write(lvt, 0x60);
    }
    apic::write(register::TIMER_DIVIDE, 0xb);
    apic::write(register::LVT_TIMER, 0x2_0061);
    apic::write(register::TIMER_INITIAL, 0xffff_ffff);
    apic::interrupt_self(VECTOR);
    let open = snippet!("sti", "nop", "nop", "cli");
    let is_taken = wait_until(smp::PATIENCE, || {
        check_eq!(run(Mode::Kernel64, open, &mut Regs::default()), Ok(()), "interrupts on");
        apic::read(register::ISR + 0x20) == 1 << (VECTOR % 32)
    });
    check!(is_taken, "an interrupt stays in service");
    apic::write(register::TPR, 0x20);
}

fn note(_: &mut Frame) -> bool {
    TAKEN.fetch_add(1, Ordering::SeqCst);
    true
}
