//! A FADT with a reset register, which the emulator's firmware has none of, for GRUB to put in place.

/// Length of a table of the version that brought the register.
const LENGTH: usize = 244;
/// The emulator's PM1a blocks.
const PM1A_EVENT: u32 = 0xb000;
const PM1A_CONTROL: u32 = 0xb004;
/// Flags: the table names a reset register.
const HAS_RESET: u32 = 1 << 10;
/// A port without a device, which nobody takes for a reset unless by this table.
const RESET_PORT: u16 = 0x610;
const RESET_VALUE: u8 = 0x0e;

/// The table (ACPI, "Fixed ACPI Description Table (FADT)"); GRUB enters the addresses of the tables it leads to.
pub(super) fn table() -> [u8; LENGTH] {
    let mut table = [0; LENGTH];
    let mut put = |offset: usize, bytes: &[u8]| table[offset..offset + bytes.len()].copy_from_slice(bytes);
    put(0, b"FACP");
    put(4, &244_u32.to_le_bytes());
    put(8, &[3]);
    put(10, b"XMHF  TESTFADT");
    put(56, &PM1A_EVENT.to_le_bytes());
    put(64, &PM1A_CONTROL.to_le_bytes());
    // Lengths of the PM1 blocks.
    put(88, &[4, 2]);
    put(112, &HAS_RESET.to_le_bytes());
    // A generic address: I/O space, eight bits.
    put(116, &[1, 8, 0, 1]);
    put(120, &u64::from(RESET_PORT).to_le_bytes());
    put(128, &[RESET_VALUE]);
    table[9] = table.iter().fold(0_u8, |sum, &byte| sum.wrapping_sub(byte));
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_zero() {
        assert_eq!(table().iter().fold(0_u8, |sum, &byte| sum.wrapping_add(byte)), 0);
    }
}
