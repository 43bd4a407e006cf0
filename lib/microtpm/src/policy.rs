//! What sealed data is bound to: the original's TPM_PCR_INFO.

use crate::Error;
use crate::bank::{Bank, Digest};
use crate::bytes::take_slice;
use crate::pcr::PcrBanks;
use crate::selection::{SELECTION_BYTES, Selection};
use subtle::ConstantTimeEq;

/// Most bytes of a [`PcrInfo`].
pub const PCR_INFO_BYTES_LIMIT: usize = SELECTION_BYTES + 2 * crate::bank::DIGEST_BYTES_LIMIT;

/// The registers that have to hold certain values when data is unsealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Which registers.
    pub selection: Selection,
    /// Digest of their composite, as it will have to be.
    pub digest_at_release: Digest,
}

/// What a PAL hands to SEAL: a selection, the digest at release, and room for the digest at creation, which is
/// not looked at. Each digest has the length of the selection's bank; without a map there are none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PcrInfo;

impl PcrInfo {
    /// Bytes of the structure whose first two are `head`.
    #[must_use]
    pub fn bytes(head: [u8; 2]) -> usize {
        let [map_bytes, bank] = head;
        let digest = if bank & 0x80 == 0 { Bank::Sha1 } else { Bank::Sha256 }.digest_bytes();
        if map_bytes == 0 { head.len() } else { SELECTION_BYTES + 2 * digest }
    }

    /// The policy that the structure in `bytes` asks for; `None` where it binds to nothing.
    ///
    /// # Errors
    ///
    /// [`Error::BadParameter`]: it ends early; [`Error::PcrOutOfRange`]: it selects what is not there.
    pub fn policy(mut bytes: &[u8]) -> Result<Option<Policy>, Error> {
        let selection = Selection::take(&mut bytes)?;
        if selection.map.is_none() {
            return Ok(None);
        }
        let release = take_slice(&mut bytes, selection.bank.digest_bytes()).ok_or(Error::BadParameter)?;
        Ok(Some(Policy { selection, digest_at_release: release.iter().copied().collect() }))
    }
}

impl Policy {
    /// The policy that the registers of `selection` are as they are now.
    #[must_use]
    pub fn current(selection: Selection, banks: &PcrBanks) -> Self {
        Self { selection, digest_at_release: selection.composite_digest(banks) }
    }

    /// Whether the registers are as they have to be.
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
            let policy = PcrInfo::policy(&bytes).unwrap().unwrap();
            assert_eq!(
                (policy.selection.map, &policy.digest_at_release[..]),
                (Some(3), &vec![7; digest][..])
            );
            assert_eq!(PcrInfo::policy(&bytes[..digest]), Err(Error::BadParameter));
        }
    }

    #[test]
    fn without_a_map_there_is_nothing_to_bind_to() {
        for head in [[0, 0], [0, 0x80]] {
            assert_eq!((PcrInfo::bytes(head), PcrInfo::policy(&head)), (2, Ok(None)));
        }
        assert_eq!(PcrInfo::policy(&[2, 0, 0, 0]), Err(Error::PcrOutOfRange));
        assert_eq!(PcrInfo::policy(&[1]), Err(Error::BadParameter));
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
