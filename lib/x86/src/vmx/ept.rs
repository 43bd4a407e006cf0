//! Extended page tables (SDM, "The Extended Page Table Mechanism (EPT)").

use crate::address::HostPhysAddr;
use crate::mtrr::MemoryType;
use crate::paging::{ADDRESS_MASK, Attributes, Entry, PageSize, Rights, TableFormat};

/// The EPT pointer of a VMCS (SDM, "Extended-Page-Table Pointer (EPTP)").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EptPointer(pub u64);

impl EptPointer {
    /// Four levels of write-back tables under `root`, accessed and dirty flags off.
    #[must_use]
    pub const fn new(root: HostPhysAddr) -> Self {
        Self(root.get() & ADDRESS_MASK | 3 << 3 | MemoryType::WriteBack as u64)
    }

    /// Memory type of the tables, by its number.
    #[must_use]
    pub const fn memory_type(self) -> u8 {
        (self.0 & 7) as u8
    }

    /// Levels of a page walk.
    #[must_use]
    pub const fn walk_length(self) -> u8 {
        (self.0 >> 3 & 7) as u8 + 1
    }

    /// Accessed and dirty flags are on.
    #[must_use]
    pub const fn has_accessed_dirty(self) -> bool {
        self.0 >> 6 & 1 == 1
    }

    /// Returns the same, with accessed and dirty flags on or off.
    #[must_use]
    pub const fn with_accessed_dirty(self, is_enabled: bool) -> Self {
        let flags = if is_enabled { ACCESSED_DIRTY } else { 0 };
        Self(self.0 & !ACCESSED_DIRTY | flags)
    }

    /// Returns the root table.
    #[must_use]
    pub const fn root(self) -> HostPhysAddr {
        HostPhysAddr::new(self.0 & ADDRESS_MASK)
    }
}

/// Type of INVEPT (SDM, "INVEPT-Invalidate Translations Derived from EPT").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum InveptType {
    /// What derives from one EPT pointer.
    SingleContext = 1,
    /// What derives from any.
    AllContexts = 2,
}

const ACCESSED_DIRTY: u64 = 1 << 6;
const PAGE: u64 = 1 << 7;
/// Of a leaf: the memory type is the one here, whatever the guest's PAT (SDM, "Memory Type Used for Translated
/// Guest-Physical Addresses").
const IGNORE_PAT: u64 = 1 << 6;
const TYPE_SHIFT: u32 = 3;
const RIGHTS: u64 = 7;
/// A bit that processors ignore.
const DECOY: u64 = 1 << 52;

/// EPT paging-structure entries (SDM, "EPT Translation Mechanism").
///
/// A leaf leaves "ignore PAT" clear, but for one whose type is our own: the guest's PAT and the type here make the effective type as PAT and
/// MTRRs do without virtualization (SDM, "Memory Type Used for Translated Guest-Physical Addresses").
#[derive(Clone, Copy, Debug)]
pub struct EptFormat;

impl TableFormat for EptFormat {
    fn table(table: HostPhysAddr) -> u64 {
        table.get() & ADDRESS_MASK | RIGHTS
    }

    fn leaf(page: HostPhysAddr, size: PageSize, attributes: Attributes) -> u64 {
        let large = if size == PageSize::Size4K { 0 } else { PAGE };
        let memory_type = (attributes.memory_type as u64) << TYPE_SHIFT;
        let decoy = if attributes.is_decoy { DECOY } else { 0 };
        page.get() & ADDRESS_MASK | large | memory_type | decoy | u64::from(attributes.rights.bits())
    }

    fn own_leaf(page: HostPhysAddr, size: PageSize, attributes: Attributes) -> u64 {
        Self::leaf(page, size, attributes) | IGNORE_PAT
    }

    fn decode(entry: u64, level: u8) -> Entry {
        let rights = Rights::from_bits_truncate((entry & RIGHTS) as u8);
        let address = HostPhysAddr::new(entry & ADDRESS_MASK);
        if rights.is_empty() {
            return Entry::Empty;
        }
        if level > 1 && entry & PAGE == 0 {
            return Entry::Table(address);
        }
        // A reserved type is a misconfiguration, which this hypervisor never writes; its nearest
        // harmless reading is the strictest type.
        let memory_type = MemoryType::from_encoding((entry >> TYPE_SHIFT & 7) as u8).unwrap_or_default();
        let is_decoy = entry & DECOY != 0;
        Entry::Leaf { page: address, attributes: Attributes { memory_type, rights, is_decoy } }
    }
}

// The rights of an EPT entry lie in the same bits as ours (SDM, "Format of an EPT Page-Table Entry that
// Maps a 4-KByte Page").
const _: () =
    assert!(Rights::READ.bits() == 1 && Rights::WRITE.bits() == 1 << 1 && Rights::EXECUTE.bits() == 1 << 2);

#[cfg(test)]
mod tests {
    use super::{EptFormat, EptPointer};
    use crate::address::HostPhysAddr;
    use crate::mtrr::MemoryType;
    use crate::paging::{Attributes, Entry, PageSize, Rights, TableFormat};

    const RAM: Attributes =
        Attributes { memory_type: MemoryType::WriteBack, rights: Rights::all(), is_decoy: false };

    #[test]
    fn a_type_of_our_own_is_not_the_guest_s_pat_s_to_change() {
        let page = HostPhysAddr::new(0x1000);
        let entry = EptFormat::own_leaf(page, PageSize::Size4K, RAM);
        assert_eq!(entry, EptFormat::leaf(page, PageSize::Size4K, RAM) | 1 << 6);
        assert!(matches!(EptFormat::decode(entry, 1), Entry::Leaf { attributes, .. } if attributes == RAM));
    }

    #[test]
    fn entries_are_bit_for_bit_the_manual_s() {
        let leaf = |address, size, attributes| EptFormat::leaf(HostPhysAddr::new(address), size, attributes);
        assert_eq!(leaf(0x1000, PageSize::Size4K, RAM), 0x1037);
        assert_eq!(leaf(0x20_0000, PageSize::Size2M, RAM), 0x20_00b7);
        let fetch =
            Attributes { memory_type: MemoryType::WriteCombining, rights: Rights::EXECUTE, is_decoy: false };
        assert_eq!(leaf(3 << 30, PageSize::Size1G, fetch), 0xc000_008c);
        assert_eq!(EptFormat::table(HostPhysAddr::new(0x5000)), 0x5007);
    }

    #[test]
    fn what_is_encoded_decodes() {
        for size in PageSize::DESCENDING {
            for encoding in [0, 1, 4, 5, 6] {
                for bits in 1..8 {
                    let attributes = Attributes {
                        memory_type: MemoryType::from_encoding(encoding).unwrap_or_default(),
                        rights: Rights::from_bits_truncate(bits),
                        is_decoy: bits & 1 != 0,
                    };
                    let page = HostPhysAddr::new(size.bytes() * 5);
                    let entry = EptFormat::leaf(page, size, attributes);
                    assert_eq!(EptFormat::decode(entry, size.level()), Entry::Leaf { page, attributes });
                }
            }
        }
        let table = HostPhysAddr::new(0xf_ffff_ffff_f000);
        assert_eq!(EptFormat::decode(EptFormat::table(table), 2), Entry::Table(table));
        assert_eq!(EptFormat::decode(0, 4), Entry::Empty);
    }

    #[test]
    fn the_pointer_says_write_back_and_four_levels() {
        let pointer = EptPointer::new(HostPhysAddr::new(0x7000));
        assert_eq!(pointer.0, 0x701e);
        assert_eq!(pointer.root(), HostPhysAddr::new(0x7000));
        assert_eq!(pointer.with_accessed_dirty(true).0, 0x705e);
        assert!(pointer.with_accessed_dirty(true).has_accessed_dirty());
        assert_eq!(EptPointer(0x705e).with_accessed_dirty(false), pointer);
    }

    #[test]
    fn the_pointer_has_the_manual_s_bits() {
        for bit in 0..64 {
            let alone = EptPointer(1 << bit);
            let of = |first: u32, count| {
                if (first..first + count).contains(&bit) { 1 << (bit - first) } else { 0 }
            };
            assert_eq!(alone.memory_type(), of(0, 3), "bit {bit}");
            assert_eq!(alone.walk_length(), 1 + of(3, 3), "bit {bit}");
            assert_eq!(alone.has_accessed_dirty(), bit == 6, "bit {bit}");
            let address = if (12..52).contains(&bit) { 1 << bit } else { 0 };
            assert_eq!(alone.root().get(), address, "bit {bit}");
            assert_eq!(EptPointer::new(HostPhysAddr::new(1 << bit)).0, address | 0x1e, "bit {bit}");
        }
        let all = EptPointer(u64::MAX);
        assert_eq!((all.memory_type(), all.walk_length(), all.has_accessed_dirty()), (7, 8, true));
        assert_eq!(all.with_accessed_dirty(true), all);
        assert_eq!(all.with_accessed_dirty(false).0, !(1 << 6));
    }

    #[test]
    fn an_entry_has_the_manual_s_bits() {
        let decoy = Attributes { is_decoy: true, ..RAM };
        assert_eq!(EptFormat::leaf(HostPhysAddr::new(0x1000), PageSize::Size4K, decoy), 0x10_0000_0000_1037);
        for level in 1..=4 {
            for bit in 3..64 {
                let entry = EptFormat::decode(7 | 1 << bit, level);
                let page = HostPhysAddr::new(if (12..52).contains(&bit) { 1 << bit } else { 0 });
                if level > 1 && bit != 7 {
                    assert_eq!(entry, Entry::Table(page), "level {level}, bit {bit}");
                    continue;
                }
                // Types 2 is reserved.
                let memory_type = match bit {
                    3 => MemoryType::WriteCombining,
                    5 => MemoryType::WriteThrough,
                    _ => MemoryType::Uncacheable,
                };
                let attributes = Attributes { memory_type, rights: Rights::all(), is_decoy: bit == 52 };
                assert_eq!(entry, Entry::Leaf { page, attributes }, "level {level}, bit {bit}");
            }
            assert_eq!(EptFormat::decode(!7, level), Entry::Empty);
        }
    }
}
