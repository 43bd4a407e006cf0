//! The guest's console: COM1, polled, 115200 baud, 8 data bits.

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, Ordering};

use crate::cpu::{in8, out8, pause};

const COM1: u16 = 0x3f8;
const LINE_CONTROL: u16 = COM1 + 3;
const LINE_STATUS: u16 = COM1 + 5;
const TRANSMITTER_HOLDING_EMPTY: u8 = 1 << 5;
const TRANSMITTER_EMPTY: u8 = 1 << 6;

static LOCKED: AtomicBool = AtomicBool::new(false);

/// Prints one line. Lines of several CPUs do not mix; not for NMI handlers.
#[macro_export]
macro_rules! println {
    ($($argument:tt)*) => { $crate::console::print_line(format_args!($($argument)*)) };
}

/// Prints `arguments` and a line end. Called by [`crate::println!`].
pub fn print_line(arguments: fmt::Arguments<'_>) {
    while LOCKED.swap(true, Ordering::Acquire) {
        pause();
    }
    // Writing to the port cannot fail; what a value's formatter says matters to nobody here.
    let _ = writeln!(Com1, "xmhf-guest: {arguments}");
    LOCKED.store(false, Ordering::Release);
}

/// Waits until the last byte has left: a machine that ends at once would lose it.
pub fn drain() {
    while in8(LINE_STATUS) & TRANSMITTER_EMPTY == 0 {
        pause();
    }
}

/// Frees the console from a holder that will never come back.
pub(crate) fn break_lock() {
    LOCKED.store(false, Ordering::Release);
}

pub(crate) fn initialise() {
    out8(COM1 + 1, 0);
    out8(LINE_CONTROL, 0x83);
    out8(COM1, 1);
    out8(COM1 + 1, 0);
    out8(LINE_CONTROL, 3);
}

struct Com1;

impl Write for Com1 {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            while in8(LINE_STATUS) & TRANSMITTER_HOLDING_EMPTY == 0 {
                pause();
            }
            out8(COM1, byte);
        }
        Ok(())
    }
}
