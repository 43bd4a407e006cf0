//! A MCFG that the emulator's firmware does not have, for GRUB to put in place.

/// Header, eight bytes reserved, one entry.
const LENGTH: usize = 36 + 8 + 16;
/// Memory that a boot takes out of the memory map.
const BASE: u64 = 0x200_0000;
/// Buses of which that is configuration space: so much memory is taken.
const LAST_BUS: u8 = 0;

/// The table (PCI Firmware Specification, "MCFG Table Description").
pub(super) fn table() -> [u8; LENGTH] {
    let mut table = [0; LENGTH];
    let mut put = |offset: usize, bytes: &[u8]| table[offset..offset + bytes.len()].copy_from_slice(bytes);
    put(0, b"MCFG");
    put(4, &60_u32.to_le_bytes());
    put(8, &[1]);
    put(10, b"XMHF  TESTMCFG");
    put(44, &BASE.to_le_bytes());
    put(55, &[LAST_BUS]);
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
