//! Layouts of the memory type range registers (SDM, "Memory Type Range Registers (MTRRs)").

use crate::msr::Msr;

/// How the processor caches a range of physical memory (SDM, "Memory Types").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum MemoryType {
    /// UC.
    #[default]
    Uncacheable = 0,
    /// WC.
    WriteCombining = 1,
    /// WT.
    WriteThrough = 4,
    /// WP.
    WriteProtected = 5,
    /// WB.
    WriteBack = 6,
}

impl MemoryType {
    /// Returns the type of this encoding; `None` for the reserved ones.
    #[must_use]
    pub const fn from_encoding(encoding: u8) -> Option<Self> {
        Some(match encoding {
            0 => Self::Uncacheable,
            1 => Self::WriteCombining,
            4 => Self::WriteThrough,
            5 => Self::WriteProtected,
            6 => Self::WriteBack,
            _ => return None,
        })
    }
}

/// IA32_MTRRCAP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MtrrCapabilities(pub u64);

impl MtrrCapabilities {
    /// Returns the number of variable-range pairs.
    #[must_use]
    pub const fn variable_count(self) -> usize {
        (self.0 & 0xff) as usize
    }

    /// Returns whether the fixed-range registers exist.
    #[must_use]
    pub const fn has_fixed(self) -> bool {
        self.0 >> 8 & 1 == 1
    }

    /// Returns whether the write-combining type exists.
    #[must_use]
    pub const fn has_write_combining(self) -> bool {
        self.0 >> 10 & 1 == 1
    }
}

/// IA32_MTRR_DEF_TYPE.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MtrrDefaultType(pub u64);

impl MtrrDefaultType {
    /// All bits that are not reserved.
    pub const DEFINED: u64 = 0xcff;
    /// FE: fixed-range registers count.
    pub const FIXED_ENABLE: u64 = 1 << 10;
    /// E: MTRRs count at all.
    pub const ENABLE: u64 = 1 << 11;

    /// Returns the type of memory that no range covers, as encoded.
    #[must_use]
    pub const fn type_encoding(self) -> u8 {
        (self.0 & 0xff) as u8
    }

    /// E.
    #[must_use]
    pub const fn is_enabled(self) -> bool {
        self.0 & Self::ENABLE != 0
    }

    /// FE, which counts only where E is set.
    #[must_use]
    pub const fn is_fixed_enabled(self) -> bool {
        self.is_enabled() && self.0 & Self::FIXED_ENABLE != 0
    }
}

/// One pair of IA32_MTRR_PHYSBASEn and IA32_MTRR_PHYSMASKn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VariableMtrr {
    /// IA32_MTRR_PHYSBASEn.
    pub base: u64,
    /// IA32_MTRR_PHYSMASKn.
    pub mask: u64,
}

impl VariableMtrr {
    /// V, in the mask register.
    pub const VALID: u64 = 1 << 11;

    /// Returns whether the pair counts.
    #[must_use]
    pub const fn is_valid(self) -> bool {
        self.mask & Self::VALID != 0
    }

    /// Type, as encoded.
    #[must_use]
    pub const fn type_encoding(self) -> u8 {
        (self.base & 0xff) as u8
    }

    /// Returns the address bits that decide, of a processor with `physical_address_bits`.
    #[must_use]
    pub const fn address_mask(self, physical_address_bits: u8) -> u64 {
        self.mask & ((1 << physical_address_bits) - 1) & !0xfff
    }
}

/// One fixed-range register: eight ranges, the lowest byte for the lowest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FixedMtrr {
    /// Its number.
    pub msr: Msr,
    /// First address of its first range.
    pub start: u64,
    /// Bytes of each of its ranges.
    pub granule: u64,
}

/// First address that no fixed-range register covers.
pub const FIXED_END: u64 = 0x10_0000;

/// The fixed-range registers by address (SDM, "Fixed Range MTRRs").
pub const FIXED: [FixedMtrr; 11] = {
    let mut registers = [FixedMtrr { msr: Msr::IA32_MTRR_FIX64K_00000, start: 0, granule: 0x1_0000 }; 11];
    registers[1] = FixedMtrr { msr: Msr::IA32_MTRR_FIX16K_80000, start: 0x8_0000, granule: 0x4000 };
    registers[2] = FixedMtrr { msr: Msr::IA32_MTRR_FIX16K_A0000, start: 0xa_0000, granule: 0x4000 };
    let mut index: u32 = 0;
    while index < 8 {
        let msr = Msr(Msr::IA32_MTRR_FIX4K_C0000.0 + index);
        registers[3 + index as usize] =
            FixedMtrr { msr, start: 0xc_0000 + 0x8000 * index as u64, granule: 0x1000 };
        index += 1;
    }
    registers
};

/// Register and byte in it for `address`; `None` from [`FIXED_END`] on.
#[must_use]
pub const fn fixed_slot(address: u64) -> Option<(usize, usize)> {
    let (index, byte) = match address {
        0..0x8_0000 => (0, address >> 16),
        0x8_0000..0xc_0000 => (1 + ((address - 0x8_0000) >> 17), address >> 14 & 7),
        0xc_0000..FIXED_END => (3 + ((address - 0xc_0000) >> 15), address >> 12 & 7),
        _ => return None,
    };
    Some(((index & 0xf) as usize, (byte & 7) as usize))
}

#[cfg(test)]
mod tests {
    use super::{FIXED, FIXED_END, MemoryType, MtrrCapabilities, MtrrDefaultType, VariableMtrr, fixed_slot};
    use crate::msr::Msr;

    #[test]
    fn fixed_registers_tile_the_first_mebibyte() {
        let mut at = 0;
        for register in FIXED {
            assert_eq!(register.start, at);
            at += 8 * register.granule;
        }
        assert_eq!(at, FIXED_END);
        assert_eq!(FIXED[10].msr, Msr::IA32_MTRR_FIX4K_F8000);
    }

    #[test]
    fn a_fixed_slot_is_where_the_range_holds_the_address() {
        for address in (0..FIXED_END).step_by(0x1000) {
            let found = FIXED.iter().position(|r| (r.start..r.start + 8 * r.granule).contains(&address));
            let byte = found.map(|i| usize::try_from((address - FIXED[i].start) / FIXED[i].granule));
            assert_eq!(fixed_slot(address).map(|s| s.0), found);
            assert_eq!(fixed_slot(address).map(|s| Ok(s.1)), byte);
        }
        assert_eq!(fixed_slot(FIXED_END), None);
    }

    #[test]
    fn reserved_types_are_none() {
        let known: Vec<u8> = (0..=255).filter(|&t| MemoryType::from_encoding(t).is_some()).collect();
        assert_eq!(known, [0, 1, 4, 5, 6]);
        assert!(known.iter().all(|&t| MemoryType::from_encoding(t).map(|m| m as u8) == Some(t)));
    }

    // Bits by the figures of SDM, "Feature Identification", "IA32_MTRR_DEF_TYPE MSR" and "Variable Range MTRRs".

    #[test]
    fn capabilities_have_the_manual_s_bits() {
        let all = MtrrCapabilities(u64::MAX);
        assert_eq!((all.variable_count(), all.has_fixed(), all.has_write_combining()), (255, true, true));
        assert_eq!(MtrrCapabilities(0x508).variable_count(), 8);
        for bit in 0..64 {
            let alone = MtrrCapabilities(1 << bit);
            assert_eq!(alone.variable_count(), if bit < 8 { 1 << bit } else { 0 }, "bit {bit}");
            assert_eq!(alone.has_fixed(), bit == 8, "bit {bit}");
            assert_eq!(alone.has_write_combining(), bit == 10, "bit {bit}");
        }
    }

    #[test]
    fn the_default_type_has_the_manual_s_bits() {
        assert_eq!(MtrrDefaultType(0xc05).type_encoding(), 5);
        for bit in 0..64 {
            let alone = MtrrDefaultType(1 << bit);
            assert_eq!(u64::from(alone.type_encoding()), if bit < 8 { 1 << bit } else { 0 }, "bit {bit}");
            assert_eq!(alone.is_enabled(), bit == 11, "bit {bit}");
            assert!(!alone.is_fixed_enabled(), "bit {bit}: fixed ranges need both enables");
            let with_enable = MtrrDefaultType(1 << bit | 1 << 11);
            assert_eq!(with_enable.is_fixed_enabled(), bit == 10, "bit {bit}");
        }
        assert_eq!(MtrrDefaultType::DEFINED, 0xff | 1 << 10 | 1 << 11);
    }

    #[test]
    fn a_variable_pair_has_the_manual_s_bits() {
        for bit in 0..64 {
            let pair = VariableMtrr { base: 1 << bit, mask: 1 << bit };
            assert_eq!(u64::from(pair.type_encoding()), if bit < 8 { 1 << bit } else { 0 }, "bit {bit}");
            assert_eq!(pair.is_valid(), bit == 11, "bit {bit}");
            for width in [36, 39, 46, 52] {
                let address = if (12..width).contains(&bit) { 1 << bit } else { 0 };
                assert_eq!(pair.address_mask(width), address, "bit {bit} of {width}");
            }
        }
        let pair = VariableMtrr { base: u64::MAX, mask: u64::MAX };
        assert_eq!((pair.type_encoding(), pair.address_mask(36)), (255, 0xf_ffff_f000));
    }
}
