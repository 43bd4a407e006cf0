//! Reset by port CF9h: the chipset's reset control register, hard reset.
//! resets: yes
#![no_std]
#![no_main]

use guest::cpu::out8;
use guest::{guest, reset};

guest!(main);

fn main() {
    reset::expect(|| {
        out8(0xcf9, 2);
        out8(0xcf9, 6);
    });
}
