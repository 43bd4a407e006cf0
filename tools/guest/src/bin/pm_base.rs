//! The chipset's register that says at which ports the power-management registers are: under the hypervisor, which watches
//! these ports, it keeps its value, whatever writes it, and its neighbours are the guest's.
#![no_std]
#![no_main]

use guest::cpu::{in8, in32, out8, out16, out32, under_hypervisor, wait_until};
use guest::memory::read32;
use guest::smp::PATIENCE;
use guest::{acpi, check, check_eq, guest};

guest!(main);

const ADDRESS: u16 = 0xcf8;
const DATA: u16 = 0xcfc;
/// The power-management function of the emulator's chipset, and its registers.
const FUNCTION: u32 = 0x8000_0000 | 1 << 11 | 3 << 8;
const BASE: u8 = 0x40;
const INTERRUPT_LINE: u8 = 0x3c;
/// Ports without a device.
const ELSEWHERE: u32 = 0x6000;

fn main() {
    let fadt = acpi::table(*b"FACP").unwrap_or(0);
    let known = read32(fadt + 56).unwrap_or(0);
    let old = read(BASE);
    check!(known != 0 && old & !1 == known, "the register holds {old:#x}, the FADT says {known:#x}");
    let expected = |moved: u32| if under_hypervisor() { old } else { moved };

    write(BASE, ELSEWHERE | 1);
    check_eq!(read(BASE), expected(ELSEWHERE | 1), "behind a write of 32 bits");
    write(BASE, old);
    choose(BASE);
    out16(DATA, 0x6001);
    check_eq!(read(BASE), expected(ELSEWHERE | 1), "behind one of 16");
    write(BASE, old);
    choose(BASE);
    out8(DATA + 1, 0x60);
    check_eq!(read(BASE), expected(old & !0xff00 | ELSEWHERE), "behind one of 8");
    write(BASE, old);
    check_eq!(read(BASE), old, "the register");
    // The power-management timer counts there.
    let timer = u16::try_from(known).unwrap_or(0) + 8;
    let before = in32(timer);
    check!(
        wait_until(PATIENCE, || in32(timer) != before),
        "the registers are at the ports that the FADT names"
    );

    let line = read(INTERRUPT_LINE);
    choose(INTERRUPT_LINE);
    out8(DATA, 0x5a);
    check_eq!(in8(DATA), 0x5a, "a neighbour");
    write(INTERRUPT_LINE, line);
    check_eq!(read(INTERRUPT_LINE), line, "a neighbour behind a write of 32 bits");
}

fn choose(register: u8) {
    out32(ADDRESS, FUNCTION | u32::from(register));
}

fn read(register: u8) -> u32 {
    choose(register);
    in32(DATA)
}

fn write(register: u8, value: u32) {
    choose(register);
    out32(DATA, value);
}
