//! What a guest needs of ACPI: the power-off and reset registers, and the number of processors.

use crate::memory::{read8, read16, read32, read64};

/// PM1a control port and the sleep type of S5 (ACPI, "Fixed ACPI Description Table"; "\_Sx (System States)").
pub fn power_off_register() -> Option<(u16, u16)> {
    let fadt = table(*b"FACP")?;
    let control = word(fadt + 64) as u16;
    let dsdt = u64::from(word(fadt + 40));
    let length = u64::from(word(dsdt + 4));
    let name = (dsdt..dsdt + length).find(|&at| word(at) == u32::from_le_bytes(*b"_S5_"))?;
    // Name, package opcode, length byte, count; the first element is a byte constant or One or Zero.
    let element = name + 7;
    let sleep_type = match byte(element) {
        0x0a => byte(element + 1),
        small => small,
    };
    (control != 0).then_some((control, u16::from(sleep_type & 7)))
}

/// The reset register, where it is a port, and its value (ACPI, "Reset Register").
pub fn reset_register() -> Option<(u16, u8)> {
    const HAS_RESET: u32 = 1 << 10;
    const SYSTEM_IO: u8 = 1;
    let fadt = table(*b"FACP")?;
    let is_there =
        word(fadt + 4) >= 129 && word(fadt + 112) & HAS_RESET != 0 && byte(fadt + 116) == SYSTEM_IO;
    is_there.then(|| (word(fadt + 120) as u16, byte(fadt + 128)))
}

/// Enabled processors that the MADT lists.
pub fn processors() -> u32 {
    let Some(madt) = table(*b"APIC") else { return 1 };
    let end = madt + u64::from(word(madt + 4));
    let mut at = madt + 44;
    let mut count = 0;
    while at < end {
        let enabled = match byte(at) {
            0 => word(at + 4) & 1,
            9 => word(at + 8) & 1,
            _ => 0,
        };
        count += enabled;
        at += u64::from(byte(at + 1)).max(2);
    }
    count
}

/// Physical address of the table with this signature, by RSDP and RSDT.
pub fn table(signature: [u8; 4]) -> Option<u64> {
    let rsdt = u64::from(word(rsdp()? + 16));
    let entries = u64::from(word(rsdt + 4).checked_sub(36)?) / 4;
    (0..entries)
        .map(|i| u64::from(word(rsdt + 36 + 4 * i)))
        .find(|&t| word(t) == u32::from_le_bytes(signature))
}

fn rsdp() -> Option<u64> {
    let extended_bios_data = u64::from(read16(0x40e).unwrap_or(0)) << 4;
    (extended_bios_data..extended_bios_data + 0x400)
        .chain(0xe_0000..0x10_0000)
        .step_by(16)
        .find(|&at| read64(at) == Ok(u64::from_le_bytes(*b"RSD PTR ")))
}

fn byte(address: u64) -> u8 {
    read8(address).unwrap_or(0)
}

fn word(address: u64) -> u32 {
    read32(address).unwrap_or(0)
}
