//! What a unit can do (VT-d, "Capability Register", "Extended Capability Register").

use bitflags::bitflags;
use x86::paging::PageSize;

bitflags! {
    /// The capability register.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Capability: u64 {
        /// AFL: faults can be logged to memory.
        const ADVANCED_FAULT_LOGGING = 1 << 3;
        /// RWBF: write buffers have to be flushed behind each change of a table.
        const REQUIRED_WRITE_BUFFER_FLUSH = 1 << 4;
        /// PLMR: there is a protected low-memory region.
        const PROTECTED_LOW_MEMORY = 1 << 5;
        /// PHMR: there is a protected high-memory region.
        const PROTECTED_HIGH_MEMORY = 1 << 6;
        /// CM: what is not present may be kept too.
        const CACHING_MODE = 1 << 7;
        /// ZLR: reads of no bytes pass pages that can be written alone.
        const ZERO_LENGTH_READ = 1 << 22;
        /// SLLPS: second-level pages of 2 MiB.
        const PAGES_2M = 1 << 34;
        /// SLLPS: second-level pages of 1 GiB.
        const PAGES_1G = 1 << 35;
        /// PSI: single pages can be invalidated.
        const PAGE_SELECTIVE_INVALIDATION = 1 << 39;
        /// DWD: an invalidation can wait for writes on their way.
        const WRITE_DRAINING = 1 << 54;
        /// DRD: an invalidation can wait for reads on their way.
        const READ_DRAINING = 1 << 55;
        /// ESIRTPS: setting the interrupt table invalidates what is kept of the last.
        const SET_INTERRUPT_TABLE_INVALIDATES = 1 << 62;
        /// ESRTPS: setting the root table invalidates what is kept of the last.
        const SET_ROOT_TABLE_INVALIDATES = 1 << 63;
        /// Fields, and what this crate gives no name.
        const _ = !0;
    }
}

bitflags! {
    /// The extended capability register.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct ExtendedCapability: u64 {
        /// C: walks of tables see the processors' caches.
        const COHERENT_WALKS = 1 << 0;
        /// QI: invalidation by a queue.
        const QUEUED_INVALIDATION = 1 << 1;
        /// DT: devices may keep translations.
        const DEVICE_TLB = 1 << 2;
        /// IR: interrupts can be remapped.
        const INTERRUPT_REMAPPING = 1 << 3;
        /// EIM: to x2APIC IDs of 32 bits.
        const EXTENDED_INTERRUPT_MODE = 1 << 4;
        /// PT: contexts that pass everything through.
        const PASS_THROUGH = 1 << 6;
        /// SC: entries can force snooping.
        const SNOOP_CONTROL = 1 << 7;
        /// SMTS: scalable mode.
        const SCALABLE_MODE = 1 << 43;
        /// ADMS: a root table address that stands for no access at all.
        const ABORT_DMA_MODE = 1 << 52;
        /// Fields, and what this crate gives no name.
        const _ = !0;
    }
}

/// Numbers of levels that second-level tables may have, widest last.
pub const LEVELS: core::ops::RangeInclusive<u8> = 3..=5;

impl Capability {
    /// ND: how many domain IDs there are; 0 for the reserved encoding.
    #[must_use]
    pub const fn domains(self) -> u32 {
        match self.bits() & 7 {
            7 => 0,
            encoding => 1 << (4 + 2 * encoding),
        }
    }

    /// SAGAW: tables of so many levels will do, 3 of 39 bits, 4 of 48, 5 of 57.
    #[must_use]
    pub const fn has_levels(self, levels: u8) -> bool {
        match levels {
            3..=5 => self.bits() >> (8 + levels - 2) & 1 == 1,
            _ => false,
        }
    }

    /// MGAW: bits of the addresses that devices may use.
    #[must_use]
    pub const fn address_bits(self) -> u8 {
        (self.bits() >> 16 & 0x3f) as u8 + 1
    }

    /// FRO: offset of the first fault record.
    #[must_use]
    pub const fn fault_records(self) -> u16 {
        16 * (self.bits() >> 24 & 0x3ff) as u16
    }

    /// NFR: how many fault records there are.
    #[must_use]
    pub const fn fault_record_count(self) -> u16 {
        (self.bits() >> 40 & 0xff) as u16 + 1
    }

    /// MAMV: an invalidation of pages goes for up to two to this power at once.
    #[must_use]
    pub const fn largest_page_mask(self) -> u8 {
        (self.bits() >> 48 & 0x3f) as u8
    }

    /// SLLPS: the largest second-level page.
    #[must_use]
    pub const fn largest_page(self) -> PageSize {
        match (self.contains(Self::PAGES_2M), self.contains(Self::PAGES_1G)) {
            (true, true) => PageSize::Size1G,
            (true, false) => PageSize::Size2M,
            // A unit that has the larger alone is one that no table would use well.
            (false, _) => PageSize::Size4K,
        }
    }
}

impl ExtendedCapability {
    /// IRO: offset of the registers that invalidate the IOTLB.
    #[must_use]
    pub const fn iotlb_registers(self) -> u16 {
        16 * (self.bits() >> 8 & 0x3ff) as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_capability_has_the_specifications_fields() {
        for bit in 0..64 {
            let alone = Capability::from_bits_retain(1 << bit);
            assert_eq!(alone.domains(), 1 << (4 + 2 * if bit < 3 { 1 << bit } else { 0 }), "bit {bit}");
            for levels in 0..8 {
                assert_eq!(alone.has_levels(levels), LEVELS.contains(&levels) && bit == levels + 6, "{bit}");
            }
            let field = |low, width| if (low..low + width).contains(&bit) { 1 << (bit - low) } else { 0_u16 };
            assert_eq!(u16::from(alone.address_bits()), field(16, 6) + 1, "bit {bit}");
            assert_eq!(alone.fault_records(), 16 * field(24, 10), "bit {bit}");
            assert_eq!(alone.fault_record_count(), field(40, 8) + 1, "bit {bit}");
            assert_eq!(u16::from(alone.largest_page_mask()), field(48, 6), "bit {bit}");
        }
        assert_eq!(Capability::from_bits_retain(7).domains(), 0);
        let pages = |bits: u64| Capability::from_bits_retain(bits << 34).largest_page();
        let sizes = [PageSize::Size4K, PageSize::Size2M, PageSize::Size4K, PageSize::Size1G];
        assert_eq!([0, 1, 2, 3].map(pages), sizes);
    }

    #[test]
    fn the_extended_capability_places_the_iotlb_registers() {
        for bit in 0..64 {
            let expected = if (8..18).contains(&bit) { 16 << (bit - 8) } else { 0 };
            assert_eq!(
                ExtendedCapability::from_bits_retain(1 << bit).iotlb_registers(),
                expected,
                "bit {bit}"
            );
        }
    }

    #[test]
    fn what_qemu_says_is_read_right() {
        // 39 bits, pages of all sizes, one fault record.
        let qemu = Capability::from_bits_retain(0x00d2_008c_2226_0206);
        assert_eq!((qemu.has_levels(3), qemu.has_levels(4), qemu.address_bits()), (true, false, 39));
        assert_eq!((qemu.largest_page(), qemu.fault_record_count()), (PageSize::Size1G, 1));
        assert_eq!((qemu.fault_records(), qemu.domains()), (0x220, 1 << 16));
    }
}
