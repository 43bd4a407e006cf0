//! Reset by the keyboard controller: command FEh pulses the reset line.
//! resets: yes
#![no_std]
#![no_main]

use guest::cpu::{in8, out8, wait_until};
use guest::{check, guest, reset, smp};

guest!(main);

fn main() {
    reset::expect(|| {
        let ready = wait_until(smp::PATIENCE, || in8(0x64) & 2 == 0);
        check!(ready, "the keyboard controller takes commands");
        out8(0x64, 0xfe);
    });
}
