//! Reset by port 92h: the fast way of old operating systems.
//! resets: yes
#![no_std]
#![no_main]

use guest::cpu::{in8, out8};
use guest::{guest, reset};

guest!(main);

fn main() {
    reset::expect(|| out8(0x92, in8(0x92) | 1));
}
