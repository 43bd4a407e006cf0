//! The registers of a PAL: what it is, and what it said of itself since.

use crate::Error;
use crate::bank::{Bank, Digest};
use crate::measurement::SectionDigests;

/// Registers of a bank.
pub const PCRS: usize = 8;

/// Both banks of a PAL's registers, all zero at its registration.
///
/// A register only ever becomes the hash of its old value with something behind it. Both banks take every
/// extension, so neither shows a state that the other has left behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PcrBanks {
    sha1: [[u8; 20]; PCRS],
    sha256: [[u8; 32]; PCRS],
}

/// A register, as a hypercall names it: 0 to 7 in the SHA-1 bank, 0x100 to 0x107 in the SHA-256 bank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PcrIndex {
    /// The bank.
    pub bank: Bank,
    /// The register in it, below [`PCRS`].
    index: usize,
}

impl PcrIndex {
    /// Bit that stands for the SHA-256 bank.
    pub const SHA256_BANK: u64 = 0x100;
    /// The register that says what a PAL is.
    pub const FIRST_SHA256: Self = Self { bank: Bank::Sha256, index: 0 };

    /// Returns the register that `number` names.
    ///
    /// # Errors
    ///
    /// [`Error::PcrOutOfRange`]: none.
    pub fn from_number(number: u64) -> Result<Self, Error> {
        let bank = if number & Self::SHA256_BANK == 0 { Bank::Sha1 } else { Bank::Sha256 };
        let index = usize::try_from(number & !Self::SHA256_BANK).ok().filter(|&index| index < PCRS);
        Ok(Self { bank, index: index.ok_or(Error::PcrOutOfRange)? })
    }
}

impl PcrBanks {
    /// Registers that were never extended.
    #[must_use]
    pub const fn new() -> Self {
        Self { sha1: [[0; 20]; PCRS], sha256: [[0; 32]; PCRS] }
    }

    /// The registers of a PAL with this header and these sections, right after its registration.
    pub fn measured(header: &[u8; 32], sections: impl IntoIterator<Item = SectionDigests>) -> Self {
        let mut banks = Self::new();
        banks.extend_header(header);
        sections.into_iter().for_each(|section| banks.extend_section(&section));
        banks
    }

    /// Returns the value of a register.
    #[must_use]
    pub fn read(&self, pcr: PcrIndex) -> &[u8] {
        self.value(pcr.bank, pcr.index)
    }

    /// Returns the value of register `index` of `bank`; empty where there is none.
    pub(crate) fn value(&self, bank: Bank, index: usize) -> &[u8] {
        match bank {
            Bank::Sha1 => self.sha1.get(index).map_or(&[], |value| value),
            Bank::Sha256 => self.sha256.get(index).map_or(&[], |value| value),
        }
    }

    /// Extends a register, in both banks, by `measurement`: as many bytes as a register of the named bank has.
    ///
    /// # Errors
    ///
    /// [`Error::BadParameter`]: another number of bytes.
    pub fn extend(&mut self, pcr: PcrIndex, measurement: &[u8]) -> Result<(), Error> {
        if measurement.len() != pcr.bank.digest_bytes() {
            return Err(Error::BadParameter);
        }
        self.extend_each(pcr.index, measurement, measurement);
        Ok(())
    }

    /// Extends the first register of the SHA-256 bank by the digest of a PAL's header; the original's bank has none.
    pub fn extend_header(&mut self, digest: &[u8; 32]) {
        let new = Bank::Sha256.hash(&[&self.sha256[0], digest]);
        self.sha256[0].copy_from_slice(&new);
    }

    /// Extends the first register by what a section was measured as; section by section, in the list's order.
    pub fn extend_section(&mut self, section: &SectionDigests) {
        self.extend_each(0, &section.sha1, &section.sha256);
    }

    fn extend_each(&mut self, index: usize, sha1: &[u8], sha256: &[u8]) {
        let old = (self.value(Bank::Sha1, index), self.value(Bank::Sha256, index));
        let new: (Digest, Digest) = (Bank::Sha1.hash(&[old.0, sha1]), Bank::Sha256.hash(&[old.1, sha256]));
        self.sha1[index].copy_from_slice(&new.0);
        self.sha256[index].copy_from_slice(&new.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::hex;

    fn index(number: u64) -> PcrIndex {
        PcrIndex::from_number(number).unwrap()
    }

    #[test]
    fn registers_begin_as_zero() {
        let banks = PcrBanks::new();
        for number in 0..8 {
            assert_eq!(banks.read(index(number)), [0; 20]);
            assert_eq!(banks.read(index(0x100 + number)), [0; 32]);
        }
    }

    #[test]
    fn an_extension_hashes_old_value_and_measurement_in_both_banks() {
        let mut banks = PcrBanks::new();
        banks.extend(index(3), &[0x11; 20]).unwrap();
        banks.extend(index(3), &[0x22; 20]).unwrap();
        // From sha1sum and sha256sum.
        assert_eq!(banks.read(index(3)), hex(TWICE_SHA1));
        assert_eq!(banks.read(index(0x103)), hex(TWICE_SHA256));
        assert_eq!(banks.read(index(2)), [0; 20]);
        assert_eq!(banks.read(index(0x104)), [0; 32]);
    }

    #[test]
    fn a_long_measurement_reaches_the_short_bank_too() {
        let mut banks = PcrBanks::new();
        banks.extend(index(0x107), &[0x33; 32]).unwrap();
        assert_eq!(banks.read(index(7))[..], Bank::Sha1.hash(&[&[0; 20], &[0x33; 32]])[..]);
        assert_eq!(banks.read(index(0x107))[..], Bank::Sha256.hash(&[&[0; 32], &[0x33; 32]])[..]);
    }

    #[test]
    fn other_indices_and_lengths_are_refused() {
        for number in [8, 0xff, 0x108, 0x200, 0x1_0000_0000, 0x8000_0000_0000_0000, u64::MAX] {
            assert_eq!(PcrIndex::from_number(number), Err(Error::PcrOutOfRange), "{number:#x}");
        }
        let mut banks = PcrBanks::new();
        for (number, length) in [(0, 19), (0, 32), (0x100, 20), (0x100, 0)] {
            assert_eq!(banks.extend(index(number), &vec![0; length]), Err(Error::BadParameter));
        }
        assert_eq!(banks, PcrBanks::new());
    }

    const TWICE_SHA1: &str = "46b4464c04c4622cca40e7fa48bb2c729ebc301d";
    const TWICE_SHA256: &str = "e0caff567b4589746d6628dcc1edec9bca8c9f9ff30154b1d36b9d6f1f56e935";
}
