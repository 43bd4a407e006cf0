//! What a PAL is: a header, and a digest of each of its sections.
//!
//! The SHA-1 bank is the original's. It hashes, of each section: u32 type, u64 start unless the section is a stack or
//! holds parameters (these go where the process finds room), u64 size in bytes, then the contents; and extends its
//! first register once a section, in the order of the list. Entry, parameters and word size are not in it.
//!
//! The SHA-256 bank extends its first register by the digest of the [`Header`](crate::Header), which has all of that,
//! and then by the digest of each section's contents.

use crate::bank::Bank;
use sha1::Sha1;
use sha2::{Digest as _, Sha256};

/// Type of the section that parameters are put in.
const PARAMETERS: u32 = 3;
/// Type of a stack.
const STACK: u32 = 4;

/// A section being measured: its contents come piece by piece.
#[derive(Clone, Debug)]
pub struct SectionMeasurement {
    sha1: Sha1,
    sha256: Sha256,
}

/// What a section was measured as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SectionDigests {
    /// For the SHA-1 bank.
    pub sha1: [u8; 20],
    /// For the SHA-256 bank.
    pub sha256: [u8; 32],
}

impl SectionMeasurement {
    /// Begins with a section of type `kind`, at linear address `start`, of `size` bytes.
    #[must_use]
    pub fn new(kind: u32, start: u64, size: u64) -> Self {
        let mut measurement = Self { sha1: Sha1::new(), sha256: Sha256::new() };
        measurement.sha1.update(kind.to_le_bytes());
        if !matches!(kind, PARAMETERS | STACK) {
            measurement.sha1.update(start.to_le_bytes());
        }
        measurement.sha1.update(size.to_le_bytes());
        measurement
    }

    /// Goes on with the next bytes of the contents.
    pub fn update(&mut self, contents: &[u8]) {
        self.sha1.update(contents);
        self.sha256.update(contents);
    }

    /// Ends, where all contents have come.
    #[must_use]
    pub fn finish(self) -> SectionDigests {
        SectionDigests { sha1: self.sha1.finalize().into(), sha256: self.sha256.finalize().into() }
    }
}

impl SectionDigests {
    /// Returns the digest for `bank`.
    #[must_use]
    pub fn of_bank(&self, bank: Bank) -> &[u8] {
        match bank {
            Bank::Sha1 => &self.sha1,
            Bank::Sha256 => &self.sha256,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::hex;
    use crate::pcr::{PcrBanks, PcrIndex};
    use proptest::prelude::*;

    /// Code, data, parameters and stack, as type, start, contents.
    fn sections() -> [(u32, u64, Vec<u8>); 4] {
        [
            (1, 0x40_0000, vec![0xc3; 4096]),
            (2, 0x60_0000, (0..=255).cycle().take(8192).collect()),
            (3, 0x70_0000, vec![0x90; 4096]),
            (4, 0x80_0000, vec![0; 4096]),
        ]
    }

    fn measure((kind, start, contents): &(u32, u64, Vec<u8>)) -> SectionDigests {
        let mut measurement = SectionMeasurement::new(*kind, *start, contents.len() as u64);
        contents.chunks(4096).for_each(|page| measurement.update(page));
        measurement.finish()
    }

    fn first_register(banks: &PcrBanks, number: u64) -> &[u8] {
        banks.read(PcrIndex::from_number(number).unwrap())
    }

    #[test]
    fn the_first_register_is_as_the_originals_formula_has_it() {
        let banks = PcrBanks::measured(&[0x77; 32], sections().iter().map(measure));
        // From a script over Python's hashlib.
        assert_eq!(first_register(&banks, 0), hex("725ea3e176b325634affa39de0a389b64e91e424"));
        assert_eq!(first_register(&banks, 1), [0; 20]);
    }

    #[test]
    fn the_other_bank_has_the_header_and_then_the_contents() {
        let banks = PcrBanks::measured(&[0x77; 32], sections().iter().map(measure));
        let mut register = Bank::Sha256.hash(&[&[0; 32], &[0x77; 32]]);
        for (_, _, contents) in sections() {
            register = Bank::Sha256.hash(&[&register, &Bank::Sha256.hash(&[&contents])]);
        }
        assert_eq!(first_register(&banks, 0x100), &register[..]);
        assert_eq!(first_register(&banks, 0x101), [0; 32]);
    }

    #[test]
    fn stack_and_parameters_may_lie_anywhere_and_nothing_else_may() {
        for (index, section) in sections().iter().enumerate() {
            let moved = (section.0, section.1 + 0x1000, section.2.clone());
            assert_eq!(measure(section).sha1 == measure(&moved).sha1, index >= 2, "{section:x?}");
        }
    }

    #[test]
    fn order_type_and_size_count() {
        let [code, data, ..] = sections();
        let ordered = PcrBanks::measured(&[0; 32], [&code, &data].map(measure));
        let swapped = PcrBanks::measured(&[0; 32], [&data, &code].map(measure));
        assert_ne!(ordered, swapped);
        assert_ne!(measure(&(5, code.1, code.2.clone())), measure(&code));
        assert_ne!(SectionMeasurement::new(1, 0, 0).finish(), SectionMeasurement::new(1, 0, 4096).finish());
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(contents: Vec<u8>, pieces in 1_usize..100) {
            let mut whole = SectionMeasurement::new(2, 0x1000, 4096);
            let mut parts = whole.clone();
            whole.update(&contents);
            contents.chunks(pieces).for_each(|piece| parts.update(piece));
            prop_assert_eq!(whole.finish(), parts.finish());
        }
    }
}
