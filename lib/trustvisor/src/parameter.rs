//! The parameter list of a registration: what is copied into and out of the PAL at each call.
//!
//! In the caller's memory: u32 count, u32 unused, then `count` records of u32 type, u32 unused, u64 size in words.
//! A word has 8 bytes for a 64-bit process and 4 for a 32-bit one. A null pointer in place of the list means
//! no parameters.

use crate::section::parts;

/// Most parameters of a list.
pub const CAPACITY: usize = 64;
/// Bytes before the first record.
pub const HEADER_BYTES: usize = 8;
/// Bytes of a record.
pub const RECORD_BYTES: usize = 16;

/// What a parameter is, as the list has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum ParameterType {
    /// Passed as it is.
    Integer = 1,
    /// Names memory that is copied into the PAL's parameter section before the call and back behind it; the PAL
    /// gets the address of the copy.
    Pointer = 2,
}

impl ParameterType {
    /// Returns the type that a record's number means.
    #[must_use]
    pub const fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            1 => Self::Integer,
            2 => Self::Pointer,
            _ => return None,
        })
    }
}

/// A record of the list, as a program writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct ParameterRecord {
    /// Number of a [`ParameterType`].
    pub kind: u32,
    /// Not looked at.
    pub unused: u32,
    /// Size in words of what a pointer names; not looked at for an integer.
    pub words: u64,
}

impl ParameterRecord {
    /// The record in `bytes`.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; RECORD_BYTES]) -> Self {
        let ([kind, unused, ..], [_, words]) = parts(bytes);
        Self {
            kind: u32::from_le_bytes(kind),
            unused: u32::from_le_bytes(unused),
            words: u64::from_le_bytes(words),
        }
    }

    /// Returns the record as it stands in memory.
    #[must_use]
    pub fn to_bytes(self) -> [u8; RECORD_BYTES] {
        let mut bytes = [0; RECORD_BYTES];
        bytes[..4].copy_from_slice(&self.kind.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.unused.to_le_bytes());
        bytes[8..].copy_from_slice(&self.words.to_le_bytes());
        bytes
    }
}

/// The word size of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WordSize {
    /// Compatibility and 32-bit protected mode.
    Bits32,
    /// 64-bit mode.
    Bits64,
}

impl WordSize {
    /// Returns the number of bytes of a word.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        match self {
            Self::Bits32 => 4,
            Self::Bits64 => 8,
        }
    }

    /// `value` as a word holds it.
    #[must_use]
    pub const fn truncate(self, value: u64) -> u64 {
        match self {
            Self::Bits32 => value & 0xffff_ffff,
            Self::Bits64 => value,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_has_the_layout_of_the_original() {
        let record = ParameterRecord { kind: 2, unused: 0, words: 0x1_0000_0004 };
        let bytes = [2, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 1, 0, 0, 0];
        assert_eq!((record.to_bytes(), ParameterRecord::from_bytes(&bytes)), (bytes, record));
    }

    #[test]
    fn only_two_numbers_are_types() {
        let known: Vec<_> =
            (0..100).filter_map(ParameterType::from_number).map(|kind| (kind, kind as u32)).collect();
        assert_eq!(known, [(ParameterType::Integer, 1), (ParameterType::Pointer, 2)]);
    }

    #[test]
    fn a_word_has_its_bytes() {
        for (size, bytes, all) in [(WordSize::Bits32, 4, 0xffff_ffff), (WordSize::Bits64, 8, u64::MAX)] {
            assert_eq!((size.bytes(), size.truncate(u64::MAX), size.truncate(5)), (bytes, all, 5));
        }
    }
}
