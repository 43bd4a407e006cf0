//! Reset by the register that the FADT names; by port CF9H where it names none.
//! resets: yes
#![no_std]
#![no_main]

use guest::cpu::out8;
use guest::{acpi, guest, println, reset};

guest!(main);

const RESET_CONTROL: (u16, u8) = (0xcf9, 6);

fn main() {
    let register = acpi::reset_register();
    println!("the FADT's reset register and value: {register:x?}");
    reset::expect(|| {
        let (port, value) = acpi::reset_register().unwrap_or(RESET_CONTROL);
        out8(port, value);
    });
}
