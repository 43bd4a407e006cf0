//! A call that its thread left by a signal is not what the thread's next call, from the same place, goes on with.
//! cmdline: pal_ticks=100000
//! hypapp: trustvisor
//! bare: no
#![no_std]
#![no_main]

use guest::apic::{self, register};
use guest::memory::{read64, write64};
use guest::pal::prelude::*;
use guest::pal::{self, PALS};
use guest::run::USER_BASE;
use guest::trap;
use trustvisor::call::Failure;
use trustvisor::flags;
use trustvisor::parameter::ParameterType::{self, Integer, Pointer};

guest!(main);

const PARAMETERS: [(ParameterType, u64); 2] = [(Integer, 0), (Pointer, 1)];
const FIRST: u64 = PALS + 0x2_0000;
const SECOND: u64 = FIRST + 0x1000;
const TIMER: u8 = 0x60;

fn main() {
    for is_abortable in [false, true] {
        left(is_abortable);
    }
}

fn left(is_abortable: bool) {
    // Counts down, then writes the number it was given to the parameter, and gives it.
    let pal = Pal::place(
        Mode::User64,
        0,
        snippet!("mov rax, rdi", "mov ecx, 400000", "2: dec ecx", "jnz 2b", "mov [rsi], rax", "ret"),
    );
    let flags = if is_abortable { flags::ABORTABLE } else { flags::ORIGINAL };
    let entry = pal.entry();
    let status = pal::register_with_flags(Mode::User64, &pal.sections(), &PARAMETERS, entry, flags);
    check_eq!(status, 0, "registering");
    let _ = write64(FIRST, 0).and(write64(SECOND, 0));
    // The interrupt's handler leaves, as siglongjmp does.
    trap::handle(
        TIMER,
        Some(|_| {
            apic::end_of_interrupt();
            false
        }),
    );
    apic::write(register::TIMER_DIVIDE, 0xb);
    apic::write(register::LVT_TIMER, u32::from(TIMER));
    apic::write(register::TIMER_INITIAL, 150_000);
    let _ = pal.call([1111, USER_BASE + FIRST, 0, 0, 0, 0, 0, 0, 0, 0]);
    trap::handle(TIMER, None);
    // What was the first call's buffer is something else by now.
    let _ = write64(FIRST, 0x5555);
    let second = || {
        let called = pal.call([2222, USER_BASE + SECOND, 0, 0, 0, 0, 0, 0, 0, 0]);
        called.map(|regs| (regs.eax(), regs.rflags & CF))
    };
    check_eq!(second(), Ok((Failure::BUSY.0, CF)), "another call, while the first waits to go on");
    check_eq!((read64(FIRST), read64(SECOND)), (Ok(0x5555), Ok(0)), "memory of either");
    let abort = || pal::hypercall(Mode::User64, Command::ABORT.0, [pal.entry(), 0, 0, 0]);
    if !is_abortable {
        check_eq!(abort(), Status::NOT_ABORTABLE.0, "giving the first call up");
        check_eq!(pal.unregister(), 0, "unregistering");
        return;
    }
    check_eq!(abort(), 0, "giving the first call up");
    check_eq!(abort(), Status::NOT_ABORTABLE.0, "once more");
    check_eq!(second(), Ok((2222, 0)), "what the second call gives");
    check_eq!((read64(FIRST), read64(SECOND)), (Ok(0x5555), Ok(2222)), "memory of either");
    check_eq!(pal.unregister(), 0, "unregistering");
}
