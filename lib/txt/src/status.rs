//! What the configuration registers say (TXT guide, "Intel TXT Configuration Registers").

use bitflags::bitflags;

bitflags! {
    /// TXT.STS.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Status: u64 {
        /// All processors have done GETSEC\[SENTER\].
        const SENTER_DONE = 1 << 0;
        /// All processors have done GETSEC\[SEXIT\].
        const SEXIT_DONE = 1 << 1;
        /// The memory configuration is locked.
        const MEM_CONFIG_LOCK = 1 << 6;
        /// The private space is open.
        const PRIVATE_OPEN = 1 << 7;
        /// The TPM's locality 1 is open.
        const LOCALITY_1_OPEN = 1 << 15;
        /// The TPM's locality 2 is open.
        const LOCALITY_2_OPEN = 1 << 16;
        /// What is reserved.
        const _ = !0;
    }

    /// TXT.ESTS.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct ErrorStatus: u8 {
        /// The last launch ended in a reset; a further one would too until power is cut.
        const TXT_RESET = 1 << 0;
        /// What is reserved.
        const _ = !0;
    }

    /// TXT.E2STS.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct ExtendedErrorStatus: u64 {
        /// Memory may hold secrets: a reset clears it.
        const SECRETS = 1 << 1;
        /// What is reserved.
        const _ = !0;
    }
}

/// TXT.DIDVID: which chipset it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChipsetIdentity {
    /// PCI vendor.
    pub vendor: u16,
    /// PCI device.
    pub device: u16,
    /// Revision; a bit for each stepping that it counts as.
    pub revision: u16,
}

impl ChipsetIdentity {
    /// Takes the register apart.
    #[must_use]
    pub const fn of_register(value: u64) -> Self {
        let [v0, v1, d0, d1, r0, r1, ..] = value.to_le_bytes();
        let word = u16::from_le_bytes;
        Self { vendor: word([v0, v1]), device: word([d0, d1]), revision: word([r0, r1]) }
    }
}

/// Whether the chipset takes modules of production alone, by TXT.VER.FSBIF or, where that says nothing, TXT.VER.QPIIF.
#[must_use]
pub const fn is_production_chipset(front_side_bus: u64, quick_path: u64) -> bool {
    const PRODUCTION: u64 = 1 << 31;
    let low = front_side_bus & 0xffff_ffff;
    let version = if low == 0 || low == 0xffff_ffff { quick_path } else { front_side_bus };
    version & PRODUCTION != 0
}

/// TXT.DPR: memory that no device reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DmaProtectedRange {
    /// Neither address nor size change until a reset.
    pub is_locked: bool,
    /// First physical address behind it.
    pub end: u64,
    /// Bytes.
    pub size: u64,
}

impl DmaProtectedRange {
    /// Takes the register apart.
    #[must_use]
    pub const fn of_register(value: u64) -> Self {
        const MIB: u64 = 1 << 20;
        Self { is_locked: value & 1 != 0, end: value & 0xfff0_0000, size: ((value >> 4) & 0xff) * MIB }
    }

    /// Whether all of `length` bytes at `base` are in it.
    #[must_use]
    pub const fn holds(self, base: u64, length: u64) -> bool {
        let (Some(start), Some(behind)) = (self.end.checked_sub(self.size), base.checked_add(length)) else {
            return false;
        };
        base >= start && behind <= self.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guide_s_bits() {
        let open = Status::SENTER_DONE | Status::PRIVATE_OPEN | Status::LOCALITY_2_OPEN;
        assert_eq!((open.bits(), Status::LOCALITY_1_OPEN.bits()), (0x1_0081, 0x8000));
        assert_eq!((ErrorStatus::TXT_RESET.bits(), ExtendedErrorStatus::SECRETS.bits()), (1, 2));
    }

    #[test]
    fn a_chipset_has_vendor_device_and_revision() {
        let chipset = ChipsetIdentity::of_register(0x0009_0001_b005_8086);
        assert_eq!(chipset, ChipsetIdentity { vendor: 0x8086, device: 0xb005, revision: 1 });
    }

    #[test]
    fn production_is_told_by_the_register_that_speaks() {
        assert!(is_production_chipset(0x8000_0001, 0) && !is_production_chipset(1, 0x8000_0000));
        assert!(is_production_chipset(0, 0x8000_0000) && is_production_chipset(0xffff_ffff, 0x8000_0000));
        // The register has 32 bits.
        assert!(is_production_chipset(1 << 32, 0x8000_0000) && !is_production_chipset(1 << 32, 0));
        assert!(!is_production_chipset(0, 0) && !is_production_chipset(0xffff_ffff, 0));
    }

    #[test]
    fn a_protected_range_ends_at_its_top() {
        // 3 MiB below 0x3f800000, locked.
        let range = DmaProtectedRange::of_register(0x3f80_0031);
        assert_eq!(range, DmaProtectedRange { is_locked: true, end: 0x3f80_0000, size: 3 << 20 });
        assert!(!DmaProtectedRange::of_register(0x3f80_0030).is_locked);
        assert!(range.holds(0x3f50_0000, 3 << 20) && range.holds(0x3f7f_ffff, 1));
        assert!(!range.holds(0x3f50_0000, (3 << 20) + 1) && !range.holds(0x3f4f_ffff, 2));
        assert!(!range.holds(u64::MAX, 2) && !DmaProtectedRange::of_register(0xff0).holds(0, 0));
    }
}
