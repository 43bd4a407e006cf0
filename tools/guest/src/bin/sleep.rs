//! A sleep that keeps memory ends at once: WAK_STS says so until it is cleared, and the guest goes on.
//! bare: no
#![no_std]
#![no_main]

use guest::cpu::{in8, in16, out16};
use guest::memory::read16;
use guest::{acpi, check, check_eq, guest};

guest!(main);

const SCI_ENABLE: u16 = 1;
const SLEEP_ENABLE: u16 = 1 << 13;
const WAKE_STATUS: u16 = 1 << 15;
const POWER_BUTTON_STATUS: u16 = 1 << 8;

fn main() {
    let Some((control, off)) = acpi::power_off_register() else {
        check!(false, "the FADT and the DSDT name a register and a type");
        return;
    };
    let status = acpi::table(*b"FACP").and_then(|fadt| read16(fadt + 56).ok()).unwrap_or(0);
    check!(status != 0, "the FADT names a status register");
    for sleep_type in (0..8).filter(|&other| other != off) {
        let value = in16(control) & SCI_ENABLE | sleep_type << 10;
        out16(control, value);
        check_eq!(in16(status) & WAKE_STATUS, 0, "WAK_STS before sleep {sleep_type}");
        out16(control, value | SLEEP_ENABLE);
        check_eq!(in16(status) & WAKE_STATUS, WAKE_STATUS, "WAK_STS behind sleep {sleep_type}");
        check_eq!(in8(status + 1) & 0x80, 0x80, "the same by a byte");
        check_eq!(in16(control) & SCI_ENABLE, value & SCI_ENABLE, "SCI_EN behind sleep {sleep_type}");
        out16(status, POWER_BUTTON_STATUS);
        check_eq!(in16(status) & WAKE_STATUS, WAKE_STATUS, "WAK_STS when another bit was cleared");
        out16(status, WAKE_STATUS);
        check_eq!(in16(status) & WAKE_STATUS, 0, "WAK_STS cleared");
    }
}
