//! Ends: power off and resets.

use crate::console;
use crate::cpu::{halt, in16, out8, out16, wait};

/// Cuts the power: ACPI S5, else the port by which Bochs and QEMU end.
pub fn off() -> ! {
    console::drain();
    wait(100_000);
    if let Some((port, sleep_type)) = crate::acpi::power_off_register() {
        const SCI_ENABLE: u16 = 1;
        const SLEEP_ENABLE: u16 = 1 << 13;
        out16(port, in16(port) & SCI_ENABLE | sleep_type << 10 | SLEEP_ENABLE);
    }
    off_at_once()
}

/// Ends without a look at any table, by the port that Bochs and QEMU have.
pub(crate) fn off_at_once() -> ! {
    for byte in b"Shutdown" {
        out8(0x8900, *byte);
    }
    halt()
}
