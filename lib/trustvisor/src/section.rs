//! The section list of a registration: which pages a PAL consists of.
//!
//! In the caller's memory: u32 count, u32 unused, then `count` records of u32 type, u32 number of pages, u64
//! address of the first. All little-endian, for both word sizes.

/// Most sections of a list.
pub const CAPACITY: usize = 64;
/// Most pages of all sections together: 16 MiB.
pub const PAGES_LIMIT: u64 = 4096;
/// Bytes before the first record.
pub const HEADER_BYTES: usize = 8;
/// Bytes of a record.
pub const RECORD_BYTES: usize = 16;

/// What a section is for, as the list has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum SectionType {
    /// Read and executed by the PAL; hidden from the process.
    Code = 1,
    /// Read and written by the PAL; hidden from the process.
    Data = 2,
    /// Where the hypapp puts parameters; read and written by the PAL; hidden from the process.
    Parameters = 3,
    /// Read and written by the PAL; hidden from the process.
    Stack = 4,
    /// Read and executed by the PAL, and read and executed by the process.
    SharedCode = 5,
}

impl SectionType {
    /// Returns the type that a record's number means.
    #[must_use]
    pub const fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            1 => Self::Code,
            2 => Self::Data,
            3 => Self::Parameters,
            4 => Self::Stack,
            5 => Self::SharedCode,
            _ => return None,
        })
    }

    /// Returns whether the PAL executes it, and does not write it.
    #[must_use]
    pub const fn is_code(self) -> bool {
        matches!(self, Self::Code | Self::SharedCode)
    }
}

/// A record of the list, as a program writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct SectionRecord {
    /// Number of a [`SectionType`].
    pub kind: u32,
    /// Number of 4 KiB pages.
    pub pages: u32,
    /// Linear address of the first.
    pub start: u64,
}

impl SectionRecord {
    /// The record in `bytes`.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; RECORD_BYTES]) -> Self {
        let ([kind, pages, ..], [_, start]) = parts(bytes);
        Self {
            kind: u32::from_le_bytes(kind),
            pages: u32::from_le_bytes(pages),
            start: u64::from_le_bytes(start),
        }
    }

    /// Returns the record as it stands in memory.
    #[must_use]
    pub fn to_bytes(self) -> [u8; RECORD_BYTES] {
        let mut bytes = [0; RECORD_BYTES];
        bytes[..4].copy_from_slice(&self.kind.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.pages.to_le_bytes());
        bytes[8..].copy_from_slice(&self.start.to_le_bytes());
        bytes
    }
}

/// A record's bytes as words of four bytes, and of eight.
pub(crate) fn parts(bytes: &[u8; RECORD_BYTES]) -> ([[u8; 4]; 4], [[u8; 8]; 2]) {
    let (words, longs) = (bytes.as_chunks().0, bytes.as_chunks().0);
    ([words[0], words[1], words[2], words[3]], [longs[0], longs[1]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_has_the_layout_of_the_original() {
        let record = SectionRecord { kind: 4, pages: 2, start: 0x1234_5678_9000 };
        let bytes = [4, 0, 0, 0, 2, 0, 0, 0, 0, 0x90, 0x78, 0x56, 0x34, 0x12, 0, 0];
        assert_eq!((record.to_bytes(), SectionRecord::from_bytes(&bytes)), (bytes, record));
    }

    #[test]
    fn only_five_numbers_are_types() {
        let known: Vec<_> = (0..100).filter_map(SectionType::from_number).map(|kind| kind as u32).collect();
        assert_eq!(known, [1, 2, 3, 4, 5]);
    }

    #[test]
    fn code_is_what_a_pal_executes() {
        use SectionType::{Code, Data, Parameters, SharedCode, Stack};
        let code = [Code, Data, Parameters, Stack, SharedCode].map(SectionType::is_code);
        assert_eq!(code, [true, false, false, false, true]);
    }
}
