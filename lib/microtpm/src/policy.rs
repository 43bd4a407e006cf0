//! What sealed data is bound to: the original's TPM_PCR_INFO.

use crate::Error;
use crate::bank::{Bank, Digest};
use crate::bytes::take_slice;
use crate::pcr::PcrBanks;
use crate::selection::{SELECTION_BYTES, Selection};
use subtle::ConstantTimeEq;

/// Most bytes of a [`PcrInfo`].
pub const PCR_INFO_BYTES_LIMIT: usize = SELECTION_BYTES + 2 * crate::bank::DIGEST_BYTES_LIMIT;

/// Bits in the second byte of a selection: the SHA-256 bank; the registers as they are.
const SHA256_BANK: u8 = 0x80;
const AS_THEY_ARE: u8 = 0x40;

/// The registers that have to hold certain values when data is unsealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Which registers.
    pub selection: Selection,
    /// Digest of their composite, as it will have to be.
    pub digest_at_release: Digest,
}

/// What a PAL hands to SEAL: a selection, the digest at release, and room for the digest at creation, which is
/// not looked at. Each digest has the length of the selection's bank; without a map there are none. With 0x4000
/// added to the selection's first number there are none either: the registers have to be as they are now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PcrInfo;

impl PcrInfo {
    /// Bytes of the structure whose first two are `head`.
    #[must_use]
    pub fn bytes(head: [u8; 2]) -> usize {
        let [map_bytes, flags] = head;
        let digest = if flags & SHA256_BANK == 0 { Bank::Sha1 } else { Bank::Sha256 }.digest_bytes();
        match map_bytes {
            0 => head.len(),
            _ if flags & AS_THEY_ARE != 0 => SELECTION_BYTES,
            _ => SELECTION_BYTES + 2 * digest,
        }
    }

    /// Returns the policy that the structure in `bytes` asks for, of a PAL with these registers; `None` where it binds
    /// to nothing.
    ///
    /// # Errors
    ///
    /// [`Error::BadParameter`]: it ends early; [`Error::PcrOutOfRange`]: it selects what is not there.
    pub fn policy(bytes: &[u8], banks: &PcrBanks) -> Result<Option<Policy>, Error> {
        let (head, mut rest) = bytes.split_first_chunk::<2>().ok_or(Error::BadParameter)?;
        let flagless = [head[0], head[1] & !AS_THEY_ARE, rest.first().copied().unwrap_or(0)];
        let given = flagless.get(..head.len() + rest.len().min(1)).unwrap_or(&flagless);
        let selection = Selection::take(&mut &*given)?;
        if selection.map.is_none() {
            return Ok(None);
        }
        if head[1] & AS_THEY_ARE != 0 {
            return Ok(Some(Policy::current(selection, banks)));
        }
        // Behind the map.
        rest = rest.get(1..).unwrap_or_default();
        let release = take_slice(&mut rest, selection.bank.digest_bytes()).ok_or(Error::BadParameter)?;
        Ok(Some(Policy { selection, digest_at_release: release.iter().copied().collect() }))
    }
}

impl Policy {
    /// Returns the policy that the registers of `selection` are as they are now.
    #[must_use]
    pub fn current(selection: Selection, banks: &PcrBanks) -> Self {
        Self { selection, digest_at_release: selection.composite_digest(banks) }
    }

    /// Returns whether the registers are as they have to be.
    #[must_use]
    pub fn is_met(&self, banks: &PcrBanks) -> bool {
        let now = self.selection.composite_digest(banks);
        bool::from(now[..].ct_eq(&self.digest_at_release[..]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pcr::PcrIndex;

    #[test]
    fn the_structure_is_read_for_either_bank() {
        for (head, length, digest) in [([1, 0], 43, 20), ([1, 0x80], 67, 32)] {
            assert_eq!(PcrInfo::bytes(head), length);
            let bytes = [&head[..], &[0b11], &vec![7; digest], &vec![8; digest]].concat();
            let policy = PcrInfo::policy(&bytes, &PcrBanks::new()).unwrap().unwrap();
            assert_eq!(
                (policy.selection.map, &policy.digest_at_release[..]),
                (Some(3), &vec![7; digest][..])
            );
            assert_eq!(PcrInfo::policy(&bytes[..digest], &PcrBanks::new()), Err(Error::BadParameter));
        }
    }

    #[test]
    fn the_longest_structure_has_the_limit_s_length() {
        assert_eq!(PCR_INFO_BYTES_LIMIT, 67);
        let lengths = (0..=255).flat_map(|map| (0..=255).map(move |flags| PcrInfo::bytes([map, flags])));
        assert_eq!(lengths.max(), Some(PCR_INFO_BYTES_LIMIT));
    }

    #[test]
    fn without_a_map_there_is_nothing_to_bind_to() {
        for head in [[0, 0], [0, 0x80]] {
            assert_eq!((PcrInfo::bytes(head), PcrInfo::policy(&head, &PcrBanks::new())), (2, Ok(None)));
        }
        assert_eq!(PcrInfo::policy(&[2, 0, 0, 0], &PcrBanks::new()), Err(Error::PcrOutOfRange));
        assert_eq!(PcrInfo::policy(&[1], &PcrBanks::new()), Err(Error::BadParameter));
    }

    #[test]
    fn the_registers_as_they_are_need_no_digest() {
        let mut banks = PcrBanks::new();
        banks.extend(PcrIndex::from_number(0).unwrap(), &[1; 20]).unwrap();
        for (head, bank) in [([1, 0x40], Bank::Sha1), ([1, 0xc0], Bank::Sha256)] {
            assert_eq!(PcrInfo::bytes(head), 3);
            let expected = Policy::current(Selection { bank, map: Some(1) }, &banks);
            assert_eq!(PcrInfo::policy(&[head[0], head[1], 1], &banks), Ok(Some(expected)));
            assert_eq!(PcrInfo::policy(&head, &banks), Err(Error::BadParameter));
        }
        assert_eq!(PcrInfo::policy(&[2, 0x40, 1, 1], &banks), Err(Error::PcrOutOfRange));
    }

    #[test]
    fn a_policy_is_met_until_a_selected_register_changes() {
        let mut banks = PcrBanks::new();
        for bank in [Bank::Sha1, Bank::Sha256] {
            let policy = Policy::current(Selection { bank, map: Some(0b10) }, &banks);
            banks.extend(PcrIndex::from_number(2).unwrap(), &[1; 20]).unwrap();
            assert!(policy.is_met(&banks));
            banks.extend(PcrIndex::from_number(1).unwrap(), &[1; 20]).unwrap();
            assert!(!policy.is_met(&banks));
        }
    }
}
