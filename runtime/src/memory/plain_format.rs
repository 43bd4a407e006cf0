//! A table format of no processor, so that tests show the walker to depend on none.

use x86::address::HostPhysAddr;
use x86::mtrr::MemoryType;
use x86::paging::{Attributes, Entry, PageSize, Rights, TableFormat};

const ADDRESS: u64 = 0x0000_ffff_ffff_f000;
const TABLE: u64 = 1 << 63;
const LEAF: u64 = 1 << 62;
const DECOY: u64 = 1 << 61;

/// Type in bits 0-2, rights in bits 4-6, level of a page in bits 8-9.
#[derive(Debug)]
pub(super) struct PlainFormat;

impl TableFormat for PlainFormat {
    fn table(table: HostPhysAddr) -> u64 {
        TABLE | table.get()
    }

    fn leaf(page: HostPhysAddr, size: PageSize, attributes: Attributes) -> u64 {
        assert!(!attributes.rights.is_empty(), "a page without rights is mapped");
        assert!(page.get().is_multiple_of(size.bytes()), "{page:?} is not a page of {size:?}");
        let rights = u64::from(attributes.rights.bits()) << 4;
        let decoy = if attributes.is_decoy { DECOY } else { 0 };
        LEAF | decoy | page.get() | attributes.memory_type as u64 | rights | u64::from(size.level()) << 8
    }

    fn own_leaf(page: HostPhysAddr, size: PageSize, attributes: Attributes) -> u64 {
        Self::leaf(page, size, attributes)
    }

    fn decode(entry: u64, level: u8) -> Entry {
        let address = HostPhysAddr::new(entry & ADDRESS);
        match entry & (TABLE | LEAF) {
            0 => {
                assert_eq!(entry, 0, "an empty entry is not zero");
                Entry::Empty
            }
            TABLE => {
                assert!(level > 1, "the lowest level links a table");
                Entry::Table(address)
            }
            LEAF => {
                assert_eq!(entry >> 8 & 3, u64::from(level), "a page of another level");
                let byte = entry.to_le_bytes()[0];
                let memory_type = MemoryType::from_encoding(byte & 7).unwrap_or_default();
                let rights = Rights::from_bits_truncate(byte >> 4);
                let is_decoy = entry & DECOY != 0;
                Entry::Leaf { page: address, attributes: Attributes { memory_type, rights, is_decoy } }
            }
            _ => panic!("{entry:#x} was never written by anyone"),
        }
    }
}
