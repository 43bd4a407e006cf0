//! The longest time that an interrupt waits while something is done.

#![expect(unsafe_code, reason = "snippets")]
// UNSAFETY: a snippet's assembly is in a section of its own; only its addresses are taken here.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::apic::{self, register};
use crate::cpu::rdtsc;
use crate::{Mode, Regs, pal, run, snippet, trap};

const TIMER: u8 = 0x60;
/// Ticks between two interrupts where none waits.
const PERIOD: u32 = 5_000;

static LAST: AtomicU64 = AtomicU64::new(0);
static GAP: AtomicU64 = AtomicU64::new(0);

/// Does `act`, and gives for how many ticks, at most, no interrupt came meanwhile that was due.
pub fn longest<T>(act: impl FnOnce() -> T) -> (T, u64) {
    trap::handle(
        TIMER,
        Some(|_| {
            let now = rdtsc();
            GAP.fetch_max(now - LAST.swap(now, Ordering::Relaxed), Ordering::Relaxed);
            apic::end_of_interrupt();
            true
        }),
    );
    GAP.store(0, Ordering::Relaxed);
    apic::write(register::TIMER_DIVIDE, 0xb);
    apic::write(register::LVT_TIMER, 1 << 17 | u32::from(TIMER));
    LAST.store(rdtsc(), Ordering::Relaxed);
    apic::write(register::TIMER_INITIAL, PERIOD);
    let result = act();
    // The last interrupt that waited.
    let mut regs = Regs { rflags: pal::IF, rcx: 50_000, ..Regs::default() };
    let _ = run(Mode::User64, snippet!("2: loop 2b"), &mut regs);
    apic::write(register::TIMER_INITIAL, 0);
    (result, GAP.load(Ordering::Relaxed).saturating_sub(PERIOD.into()))
}
