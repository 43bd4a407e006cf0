//! A guest that slows the log's serial port pays for a line what a line may wait, whatever the port's speed; at the
//! speed of before the next lines are whole again.
//! hypapp: helloworld
//! bare: no
#![no_std]
#![no_main]

use guest::cpu::{in8, out8, rdtsc};
use guest::{Mode, Regs, check, check_eq, guest, println, run, snippet};

guest!(main);

const PORT: u16 = 0x2f8;
/// Divisor latch access.
const DLAB: u8 = 0x80;
/// Line status: all is sent.
const TRANSMITTER_EMPTY: u8 = 1 << 6;
/// Ticks: what a line may wait, and the exit.
const BAR: u64 = 3_000_000;

/// Returns the ticks of a call that nobody takes, about which there is a line.
fn unknown_call() -> u64 {
    let mut regs = Regs { rax: 0x1234, ..Regs::default() };
    let start = rdtsc();
    check_eq!(run(Mode::User64, snippet!("vmcall"), &mut regs), Ok(()), "a call");
    rdtsc() - start
}

fn set_divisor(value: u16) {
    let control = in8(PORT + 3);
    out8(PORT + 3, control | DLAB);
    let [low, high] = value.to_le_bytes();
    out8(PORT, low);
    out8(PORT + 1, high);
    out8(PORT + 3, control);
}

fn main() {
    for divisor in [1, 12, 96, 384, 1152] {
        set_divisor(divisor);
        for line in 0..2 {
            let ticks = unknown_call();
            println!("divisor {divisor}, line {line}: {ticks} ticks");
            check!(ticks < BAR, "a line on a slow port");
        }
    }
    set_divisor(1);
    // What the port had taken is sent first: until then it takes nothing.
    while in8(PORT + 5) & TRANSMITTER_EMPTY == 0 {}
    unknown_call();
}
