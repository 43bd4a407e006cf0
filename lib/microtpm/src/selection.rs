//! Which registers are meant: the original's TPM_PCR_SELECTION, with a flag for the other bank.

use crate::Error;
use crate::bank::{Bank, Digest};
use crate::bytes::take;
use crate::pcr::{PCRS, PcrBanks};
use arrayvec::ArrayVec;

/// Bytes of a selection: u16 number of bytes in the map, then the map.
pub const SELECTION_BYTES: usize = 3;

/// Most bytes of a composite: all values of the larger bank.
const COMPOSITE_BYTES_LIMIT: usize = SELECTION_BYTES + 4 + PCRS * crate::bank::DIGEST_BYTES_LIMIT;

/// A TPM_PCR_COMPOSITE.
pub type Composite = ArrayVec<u8, COMPOSITE_BYTES_LIMIT>;

/// Bit in the first number that stands for the SHA-256 bank.
const SHA256_BANK: u16 = 0x8000;

/// Registers of one bank.
///
/// In memory: u16 with bytes of the map, 0 or 1, and 0x8000 added for the SHA-256 bank; then the map, whose bit
/// i selects register i. The original never has bit 15.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Selection {
    /// The bank.
    pub bank: Bank,
    /// Bit i selects register i; `None` where the map has no byte at all.
    pub map: Option<u8>,
}

impl Selection {
    /// Takes a selection off `bytes`.
    ///
    /// # Errors
    ///
    /// [`Error::BadParameter`]: it ends early; [`Error::PcrOutOfRange`]: its map is longer than a bank.
    pub fn take(bytes: &mut &[u8]) -> Result<Self, Error> {
        let word = u16::from_le_bytes(take(bytes).ok_or(Error::BadParameter)?);
        let bank = if word & SHA256_BANK == 0 { Bank::Sha1 } else { Bank::Sha256 };
        let map = match word & !SHA256_BANK {
            0 => None,
            1 => Some(take::<1>(bytes).ok_or(Error::BadParameter)?[0]),
            _ => return Err(Error::PcrOutOfRange),
        };
        Ok(Self { bank, map })
    }

    /// Returns the selection as it stands in memory.
    #[must_use]
    pub fn to_bytes(self) -> ArrayVec<u8, SELECTION_BYTES> {
        let bank = if self.bank == Bank::Sha256 { SHA256_BANK } else { 0 };
        let head = (bank + u16::from(self.map.is_some())).to_le_bytes();
        head.into_iter().chain(self.map).collect()
    }

    /// Returns whether register `index` is meant.
    #[must_use]
    pub fn has(self, index: usize) -> bool {
        index < PCRS && self.map.unwrap_or(0) >> index & 1 == 1
    }

    /// Returns the registers that are meant, from the first.
    pub fn indices(self) -> impl Iterator<Item = usize> {
        (0..PCRS).filter(move |&index| self.has(index))
    }

    /// Returns the original's TPM_PCR_COMPOSITE: the selection, big-endian u32 with bytes of values, the values.
    #[must_use]
    pub fn composite(self, banks: &PcrBanks) -> Composite {
        let values = self.indices().flat_map(|index| banks.value(self.bank, index)).copied();
        // At most 8 values of 32 bytes.
        let length = u32::try_from(self.indices().count() * self.bank.digest_bytes()).unwrap_or(0);
        self.to_bytes().into_iter().chain(length.to_be_bytes()).chain(values).collect()
    }

    /// Returns the digest of the composite.
    #[must_use]
    pub fn composite_digest(self, banks: &PcrBanks) -> Digest {
        self.bank.hash(&[&self.composite(banks)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pcr::PcrIndex;

    #[test]
    fn a_selection_reads_as_it_was_written() {
        for bank in [Bank::Sha1, Bank::Sha256] {
            for map in [None, Some(0), Some(1), Some(0xff)] {
                let selection = Selection { bank, map };
                let bytes = [&selection.to_bytes()[..], &[7]].concat();
                let mut rest = &bytes[..];
                assert_eq!(Selection::take(&mut rest), Ok(selection));
                assert_eq!(rest, [7]);
            }
        }
        assert_eq!(Selection { bank: Bank::Sha1, map: Some(5) }.to_bytes()[..], [1, 0, 5]);
        assert_eq!(Selection { bank: Bank::Sha256, map: Some(5) }.to_bytes()[..], [1, 0x80, 5]);
    }

    #[test]
    fn a_map_has_the_registers_of_its_bits_and_none_beyond() {
        for map in 0..=255 {
            let selection = Selection { bank: Bank::Sha1, map: Some(map) };
            let expected: Vec<usize> = (0..8).filter(|index| map & 1 << index != 0).collect();
            assert_eq!(selection.indices().collect::<Vec<_>>(), expected);
            assert!([8, 9, 64, usize::MAX].iter().all(|&index| !selection.has(index)));
        }
        assert_eq!(Selection { bank: Bank::Sha1, map: None }.indices().count(), 0);
    }

    #[test]
    fn what_is_short_or_beyond_the_bank_is_refused() {
        assert_eq!(Selection::take(&mut &[][..]), Err(Error::BadParameter));
        assert_eq!(Selection::take(&mut &[1, 0][..]), Err(Error::BadParameter));
        assert_eq!(Selection::take(&mut &[2, 0, 1, 0][..]), Err(Error::PcrOutOfRange));
        assert_eq!(Selection::take(&mut &[0xff, 0xff, 1, 0][..]), Err(Error::PcrOutOfRange));
    }

    #[test]
    fn a_composite_has_selection_size_and_values() {
        let mut banks = PcrBanks::new();
        banks.extend(PcrIndex::from_number(2).unwrap(), &[9; 20]).unwrap();
        let short = Selection { bank: Bank::Sha1, map: Some(0b101) }.composite(&banks);
        assert_eq!(short[..7], [1, 0, 5, 0, 0, 0, 40]);
        assert_eq!((&short[7..27], &short[27..]), (&[0; 20][..], banks.value(Bank::Sha1, 2)));
        let long = Selection { bank: Bank::Sha256, map: Some(0b100) }.composite(&banks);
        assert_eq!(long[..7], [1, 0x80, 4, 0, 0, 0, 32]);
        assert_eq!(&long[7..], banks.value(Bank::Sha256, 2));
    }
}
