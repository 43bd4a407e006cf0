//! Page tables: four levels of 512 entries, whatever the format of an entry.
//!
//! [`PageFlags`] are the processor's own entries (SDM, "4-Level Paging and 5-Level Paging");
//! [`TableFormat`] is what second-level formats have in common, in words of no vendor.

use bitflags::bitflags;

use crate::address::HostPhysAddr;
use crate::mtrr::MemoryType;

/// Bytes of the smallest page, of a page table, and of most structures that the processor finds by an address.
pub const PAGE_SIZE: u64 = PAGE_BYTES as u64;
/// [`PAGE_SIZE`] as the size of an array.
pub const PAGE_BYTES: usize = 4096;
/// Entries of a table.
pub const ENTRIES: usize = 512;
/// Bits of an entry that hold a physical address.
pub const ADDRESS_MASK: u64 = 0x000f_ffff_ffff_f000;

/// Returns the number of bytes that one entry of a table of `level` covers; level 1 has the 4 KiB pages.
#[must_use]
pub const fn entry_bytes(level: u8) -> u64 {
    1 << (12 + 9 * (level - 1))
}

/// Index of the entry for `address` in a table of `level`.
#[must_use]
pub const fn index(address: u64, level: u8) -> usize {
    ((address / entry_bytes(level)) & 0x1ff) as usize
}

/// Size of a page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum PageSize {
    /// 4 KiB.
    #[default]
    Size4K,
    /// 2 MiB.
    Size2M,
    /// 1 GiB.
    Size1G,
}

impl PageSize {
    /// From the largest to the smallest.
    pub const DESCENDING: [Self; 3] = [Self::Size1G, Self::Size2M, Self::Size4K];

    /// Level of the table whose entries map such pages.
    #[must_use]
    pub const fn level(self) -> u8 {
        self as u8 + 1
    }

    /// Returns the size in bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        entry_bytes(self.level())
    }
}

bitflags! {
    /// An entry of the processor's own page tables.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct PageFlags: u64 {
        /// Present.
        const P = 1 << 0;
        /// Writable.
        const RW = 1 << 1;
        /// For user mode too.
        const US = 1 << 2;
        /// Page-level write-through.
        const PWT = 1 << 3;
        /// Page-level cache disable.
        const PCD = 1 << 4;
        /// Accessed.
        const A = 1 << 5;
        /// Dirty.
        const D = 1 << 6;
        /// Page size: the entry of a level above 1 maps a page.
        const PS = 1 << 7;
        /// Global.
        const G = 1 << 8;
        /// Execute disable.
        const XD = 1 << 63;
        /// The address, and bits that this crate gives no name.
        const _ = !0;
    }
}

bitflags! {
    /// Error code of a page fault (SDM, "Interrupt 14-Page-Fault Exception (#PF)").
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct PageFaultError: u32 {
        /// The page was present: its rights were at fault.
        const P = 1 << 0;
        /// A write.
        const WR = 1 << 1;
        /// By user mode.
        const US = 1 << 2;
        /// A reserved bit of an entry was set.
        const RSVD = 1 << 3;
        /// An instruction fetch.
        const ID = 1 << 4;
        /// Refused by a protection key.
        const PK = 1 << 5;
    }
}

bitflags! {
    /// What may be done with a page.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Rights: u8 {
        /// Data reads.
        const READ = 1 << 0;
        /// Data writes.
        const WRITE = 1 << 1;
        /// Instruction fetches.
        const EXECUTE = 1 << 2;
    }
}

/// What a second-level table says of a page, besides its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// Memory type, before the guest's own PAT has its say.
    pub memory_type: MemoryType,
    /// Rights.
    pub rights: Rights,
    /// The decoy stands in for the page: one frame of zeros for all such pages.
    pub is_decoy: bool,
}

/// An entry of a second-level table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Nothing is mapped.
    Empty,
    /// The table of the next level.
    Table(HostPhysAddr),
    /// A page.
    Leaf {
        /// Where it is.
        page: HostPhysAddr,
        /// What it may be used for.
        attributes: Attributes,
    },
}

/// A format of second-level tables; zero is an empty entry in every one.
pub trait TableFormat {
    /// Returns the entry that links `table`, with every right.
    fn table(table: HostPhysAddr) -> u64;
    /// Returns the entry that maps `page`; `attributes.rights` hold at least one right. Entries of neighbours that are
    /// alike but for the address differ by the size of the page.
    fn leaf(page: HostPhysAddr, size: PageSize, attributes: Attributes) -> u64;
    /// Returns the same, with a memory type that the guest has no say in.
    fn own_leaf(page: HostPhysAddr, size: PageSize, attributes: Attributes) -> u64;
    /// Returns what `entry`, found in a table of `level`, means.
    fn decode(entry: u64, level: u8) -> Entry;
}

#[cfg(test)]
mod tests {
    use super::{PageSize, entry_bytes, index};

    #[test]
    fn an_address_splits_into_four_indices() {
        let address = 3 << 39 | 5 << 30 | 7 << 21 | 511 << 12 | 0xfff;
        assert_eq!([4, 3, 2, 1].map(|level| index(address, level)), [3, 5, 7, 511]);
    }

    #[test]
    fn page_sizes_are_those_of_the_levels() {
        assert_eq!(PageSize::DESCENDING.map(PageSize::bytes), [1 << 30, 2 << 20, 4096]);
        assert_eq!(entry_bytes(4), 512 << 30);
    }
}
