//! A few bytes of battery-backed memory, which a reset leaves alone.

use crate::cpu::{in8, out8};

/// A byte that no firmware of the test machines uses.
pub const SCRATCH: u8 = 0x7a;

/// Reads the byte at `index`.
pub fn read(index: u8) -> u8 {
    out8(0x70, index);
    in8(0x71)
}

/// Writes the byte at `index`.
pub fn write(index: u8, value: u8) {
    out8(0x70, index);
    out8(0x71, value);
}
