//! The page attribute table (SDM, "Page Attribute Table (PAT)").

use crate::mtrr::MemoryType;

/// IA32_PAT: eight entries, one a byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pat(pub u64);

/// What one entry of the table says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatEntry {
    /// This type.
    Type(MemoryType),
    /// UC-: uncacheable unless an MTRR says write-combining.
    UncacheableMinus,
}

impl Pat {
    /// The value after power-up and reset: WB, WT, UC-, UC, twice.
    pub const RESET: Self = Self(0x0007_0406_0007_0406);

    /// Entry `index`, of which the low three bits count; `None` for a reserved encoding.
    #[must_use]
    pub const fn entry(self, index: u8) -> Option<PatEntry> {
        match (self.0 >> (8 * (index & 7)) & 0xff) as u8 {
            7 => Some(PatEntry::UncacheableMinus),
            encoding => match MemoryType::from_encoding(encoding) {
                Some(memory_type) => Some(PatEntry::Type(memory_type)),
                None => None,
            },
        }
    }

    /// No entry has a reserved encoding: WRMSR and VM entry accept the value.
    #[must_use]
    pub const fn is_valid(self) -> bool {
        let mut index = 0;
        while index < 8 {
            if self.entry(index).is_none() {
                return false;
            }
            index += 1;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::{Pat, PatEntry};
    use crate::mtrr::MemoryType;

    #[test]
    fn reset_value_reads_as_the_manual_lists_it() {
        let half = [
            PatEntry::Type(MemoryType::WriteBack),
            PatEntry::Type(MemoryType::WriteThrough),
            PatEntry::UncacheableMinus,
            PatEntry::Type(MemoryType::Uncacheable),
        ];
        for index in 0..8 {
            assert_eq!(Pat::RESET.entry(index), Some(half[usize::from(index) % 4]));
        }
    }

    #[test]
    fn a_reserved_encoding_in_any_entry_is_refused() {
        for index in 0..8 {
            for encoding in [2, 3, 8, 0xff] {
                let cleared = Pat::RESET.0 & !(0xff << (8 * index));
                assert!(!Pat(cleared | encoding << (8 * index)).is_valid());
            }
        }
        assert!(Pat::RESET.is_valid());
    }
}
