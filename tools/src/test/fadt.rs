//! FADTs that the emulator's firmware does not have, for GRUB to put in place.

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

/// What is odd about a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fadt {
    /// It names a reset register.
    Reset,
    /// Its 64-bit fields have the PM1 blocks where nothing is.
    Disagrees,
    /// The first PM1 control block is not there, the second is the only one.
    SecondBlock,
}

/// Ports without a device.
const NO_EVENT: u32 = 0x61c;
const NO_CONTROL: u32 = 0x620;

/// The table (ACPI, "Fixed ACPI Description Table (FADT)"); GRUB enters the addresses of the tables it leads to.
pub(super) fn table(kind: Fadt) -> [u8; LENGTH] {
    let mut table = [0; LENGTH];
    let mut put = |offset: usize, bytes: &[u8]| table[offset..offset + bytes.len()].copy_from_slice(bytes);
    put(0, b"FACP");
    put(4, &244_u32.to_le_bytes());
    put(8, &[3]);
    put(10, b"XMHF  TESTFADT");
    put(56, &PM1A_EVENT.to_le_bytes());
    let first = if kind == Fadt::SecondBlock { NO_CONTROL } else { PM1A_CONTROL };
    put(64, &first.to_le_bytes());
    if kind == Fadt::SecondBlock {
        put(68, &PM1A_CONTROL.to_le_bytes());
    }
    if kind == Fadt::Disagrees {
        for (offset, bits, port) in [(148, 32, NO_EVENT), (172, 16, NO_CONTROL)] {
            put(offset, &[1, bits, 0, 2]);
            put(offset + 4, &port.to_le_bytes());
        }
    }
    // Lengths of the PM1 blocks.
    put(88, &[4, 2]);
    if kind == Fadt::Reset {
        put(112, &HAS_RESET.to_le_bytes());
    }
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
        for kind in [Fadt::Reset, Fadt::Disagrees, Fadt::SecondBlock] {
            assert_eq!(table(kind).iter().fold(0_u8, |sum, &byte| sum.wrapping_add(byte)), 0, "{kind:?}");
        }
    }
}
