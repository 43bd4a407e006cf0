//! EPT paging-structure entries as another hypervisor writes them: any bits at all (SDM, "EPT Translation
//! Mechanism").

use crate::mtrr::MemoryType;
use crate::paging::{PageSize, Rights, entry_bytes};

/// Bits of an entry that mode-based execute control and accessed and dirty flags leave alone.
const RIGHTS: u64 = 7;
const LARGE: u64 = 1 << 7;
const MEMORY_TYPE_SHIFT: u32 = 3;
/// Memory type and "ignore PAT" of a leaf.
const CACHING: u64 = 0xf << MEMORY_TYPE_SHIFT;
/// Reserved in an entry that references a table, where it is not a page's memory type and flags.
const RESERVED_IN_TABLE: u64 = 0x1f << 3;
const ADDRESS_TOP: u64 = 1 << 52;

/// One entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EptEntry(pub u64);

/// What a processor's extended page tables can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EptFeatures {
    /// Fetches may be allowed without reads.
    pub has_execute_only: bool,
    /// Pages of 2 MiB.
    pub has_2mib_pages: bool,
    /// Pages of 1 GiB.
    pub has_1gib_pages: bool,
    /// MAXPHYADDR.
    pub physical_address_bits: u8,
}

impl EptEntry {
    /// Accessed flag.
    pub const ACCESSED: u64 = 1 << 8;
    /// Dirty flag, of entries that map pages.
    pub const DIRTY: u64 = 1 << 9;

    /// Returns the entry that references the table at `address`, accessed.
    #[must_use]
    pub const fn table(address: u64) -> Self {
        Self(address | RIGHTS | Self::ACCESSED)
    }

    /// Returns the entry that maps the page at `address`, accessed and dirty, caching it as `self` says.
    #[must_use]
    pub const fn leaf(self, address: u64, size: PageSize, rights: Rights) -> Self {
        let large = if matches!(size, PageSize::Size4K) { 0 } else { LARGE };
        Self(address | large | self.0 & CACHING | rights.bits() as u64 | Self::ACCESSED | Self::DIRTY)
    }

    /// Returns whether some access is allowed; where none is, all other bits are ignored.
    #[must_use]
    pub const fn is_present(self) -> bool {
        self.0 & RIGHTS != 0
    }

    /// Rights.
    #[must_use]
    pub const fn rights(self) -> Rights {
        Rights::from_bits_truncate(self.0.to_le_bytes()[0])
    }

    /// In a table of `level`, the entry maps a page.
    #[must_use]
    pub const fn is_leaf(self, level: u8) -> bool {
        level == 1 || self.0 & LARGE != 0
    }

    /// Returns the physical address of the table, or of the page of `size`.
    #[must_use]
    pub const fn address(self, size: PageSize) -> u64 {
        self.0 & (ADDRESS_TOP - size.bytes())
    }

    /// Accessed flag.
    #[must_use]
    pub const fn is_accessed(self) -> bool {
        self.0 & Self::ACCESSED != 0
    }

    /// Dirty flag.
    #[must_use]
    pub const fn is_dirty(self) -> bool {
        self.0 & Self::DIRTY != 0
    }

    /// Returns whether a present entry of a table of `level` says what it must not (SDM, "EPT Misconfigurations").
    #[must_use]
    pub const fn is_misconfigured(self, level: u8, features: &EptFeatures) -> bool {
        let is_unreadable = !self.rights().contains(Rights::READ);
        let is_executable_only = is_unreadable && !self.rights().contains(Rights::WRITE);
        if is_unreadable && !(is_executable_only && features.has_execute_only) {
            return true;
        }
        let beyond = (ADDRESS_TOP - 1) & !((1 << features.physical_address_bits) - 1);
        let reserved = if self.is_leaf(level) && features.has_pages_of(level) {
            let encoding = (self.0 >> MEMORY_TYPE_SHIFT & 7) as u8;
            if MemoryType::from_encoding(encoding).is_none() {
                return true;
            }
            // Address bits inside the page.
            (entry_bytes(level) - 1) & !0xfff
        } else {
            RESERVED_IN_TABLE
        };
        self.0 & (beyond | reserved) != 0
    }
}

impl EptFeatures {
    /// Returns the bits of an entry that hold the address of a 4 KiB page.
    #[must_use]
    pub const fn address_mask(&self) -> u64 {
        (1 << self.physical_address_bits) - PageSize::Size4K.bytes()
    }

    /// Entries of tables of `level` can map pages.
    #[must_use]
    pub const fn has_pages_of(&self, level: u8) -> bool {
        match level {
            1 => true,
            2 => self.has_2mib_pages,
            3 => self.has_1gib_pages,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{EptEntry, EptFeatures};
    use crate::paging::{PageSize, Rights};

    const FEATURES: EptFeatures = EptFeatures {
        has_execute_only: true,
        has_2mib_pages: true,
        has_1gib_pages: true,
        physical_address_bits: 40,
    };

    fn misconfigured(level: u8) -> Vec<u32> {
        // A sound entry: write-back, all rights, a page from level 3 on and a table above.
        let (sound, first) = [(0x37, 7), (0xb7, 7), (0xb7, 7), (7, 3)][usize::from(level - 1)];
        assert!(!EptEntry(sound).is_misconfigured(level, &FEATURES));
        (first..64).filter(|bit| EptEntry(sound ^ 1 << bit).is_misconfigured(level, &FEATURES)).collect()
    }

    fn with_address<const N: usize>(low: [u32; N]) -> Vec<u32> {
        low.into_iter().chain(40..52).collect()
    }

    #[test]
    fn accessed_and_dirty_are_one_bit_each() {
        let bits =
            |is: fn(EptEntry) -> bool| -> Vec<u32> { (0..64).filter(|bit| is(EptEntry(1 << bit))).collect() };
        assert_eq!((bits(EptEntry::is_accessed), bits(EptEntry::is_dirty)), (vec![8], vec![9]));
    }

    #[test]
    fn addresses_of_pages_end_at_the_processor_s_width() {
        assert_eq!(FEATURES.address_mask(), 0xff_ffff_f000);
        assert_eq!(EptFeatures { physical_address_bits: 52, ..FEATURES }.address_mask(), 0xf_ffff_ffff_f000);
    }

    #[test]
    fn each_level_has_the_reserved_bits_of_the_manual() {
        assert_eq!(misconfigured(4), with_address([3, 4, 5, 6, 7]));
        // Without bit 7 the sound type becomes reserved bits of a table.
        let page = |first: u32, last: u32| -> Vec<u32> {
            [7].into_iter().chain(first..=last).chain(40..52).collect()
        };
        assert_eq!(misconfigured(3), page(12, 29));
        assert_eq!(misconfigured(2), page(12, 20));
        assert_eq!(misconfigured(1), with_address([]));
        for level in [2, 3] {
            let table: Vec<u32> =
                (3..64).filter(|bit| EptEntry(7 | 1 << bit).is_misconfigured(level, &FEATURES)).collect();
            // Bit 7 alone makes it an uncacheable page.
            assert_eq!(table, with_address([3, 4, 5, 6]));
        }
    }

    #[test]
    fn reserved_memory_types_are_misconfigured() {
        for (level, page) in [(1, 7), (2, 0x87), (3, 0x87)] {
            let bad: Vec<u64> =
                (0..8).filter(|t| EptEntry(page | t << 3).is_misconfigured(level, &FEATURES)).collect();
            assert_eq!(bad, [2, 3, 7]);
        }
    }

    #[test]
    fn rights_that_no_table_can_give_are_misconfigured() {
        for has_execute_only in [false, true] {
            let features = EptFeatures { has_execute_only, ..FEATURES };
            for level in 1..=4 {
                let caching = if level == 1 { 0x30 } else { 0 };
                let bad: Vec<u64> =
                    (1..8).filter(|r| EptEntry(caching | r).is_misconfigured(level, &features)).collect();
                assert_eq!(bad, if has_execute_only { vec![2, 6] } else { vec![2, 4, 6] });
            }
        }
    }

    #[test]
    fn large_pages_that_the_processor_lacks_are_misconfigured() {
        let features = EptFeatures { has_1gib_pages: false, has_2mib_pages: false, ..FEATURES };
        for level in [2, 3] {
            assert!(EptEntry(0xb7).is_misconfigured(level, &features));
            assert!(!EptEntry(7).is_misconfigured(level, &features));
        }
    }

    #[test]
    fn a_made_entry_reads_back() {
        let leaf = EptEntry(0x7f).leaf(0x40_0000, PageSize::Size2M, Rights::READ);
        assert_eq!(leaf, EptEntry(0x40_03f9));
        assert!(leaf.is_present() && leaf.is_leaf(2) && leaf.is_accessed() && leaf.is_dirty());
        assert_eq!((leaf.address(PageSize::Size2M), leaf.rights()), (0x40_0000, Rights::READ));
        let table = EptEntry::table(0x5000);
        assert_eq!(
            (table, table.is_leaf(2), table.address(PageSize::Size4K)),
            (EptEntry(0x5107), false, 0x5000)
        );
        assert_eq!(EptEntry(0xfff0_0000_0000_0fff).address(PageSize::Size4K), 0);
        assert!(!EptEntry(0xffff_ffff_ffff_fff8).is_present());
    }
}
