//! The first generation of hypercalls: SEAL and UNSEAL for one value of register 0, QUOTE without a composite.
//!
//! They mean what they meant. Blobs are today's, and shorter than those that old programs have room for.

use crate::Error;
use crate::bank::Bank;
use crate::bytes::{joined, take};
use crate::identity::Identity;
use crate::pcr::{PCRS, PcrBanks};
use crate::policy::Policy;
use crate::quote::{FIXED, version};
use crate::selection::Selection;
use alloc::vec::Vec;
use arrayvec::ArrayVec;
use core::task::{Poll, ready};

/// Most registers that a quote of this generation selects.
pub const DEPRECATED_PCRS_LIMIT: usize = 4;

/// Most bytes that such a quote signs: version, name, number, indices, values, nonce.
const SIGNED_BYTES_LIMIT: usize = 12 + DEPRECATED_PCRS_LIMIT * (4 + 20) + 20;

/// Register 0 of the original's bank.
const FIRST: Selection = Selection { bank: Bank::Sha1, map: Some(1) };

/// The policy that register 0 holds `value`, or what it holds now.
#[must_use]
pub fn deprecated_policy(banks: &PcrBanks, value: Option<&[u8; 20]>) -> Policy {
    let Some(value) = value else { return Policy::current(FIRST, banks) };
    // A composite by hand: the value may be another PAL's.
    let size = [0, 0, 0, 20];
    Policy { selection: FIRST, digest_at_release: Bank::Sha1.hash(&[&FIRST.to_bytes(), &size, value]) }
}

/// The registers of a quote: u32 number of them, then a u32 index each, in any order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeprecatedSelection(ArrayVec<u32, DEPRECATED_PCRS_LIMIT>);

impl DeprecatedSelection {
    /// Bytes of the structure that begins with `count`.
    ///
    /// # Errors
    ///
    /// [`Error::BadParameter`]: too many registers.
    pub fn bytes(count: u32) -> Result<usize, Error> {
        let count = usize::try_from(count).ok().filter(|&count| count <= DEPRECATED_PCRS_LIMIT);
        count.map(|count| 4 + 4 * count).ok_or(Error::BadParameter)
    }

    /// Reads the structure.
    ///
    /// # Errors
    ///
    /// [`Error::BadParameter`]: it ends early or is too long; [`Error::PcrOutOfRange`]: there is no such register.
    pub fn parse(mut bytes: &[u8]) -> Result<Self, Error> {
        let count = u32::from_le_bytes(take(&mut bytes).ok_or(Error::BadParameter)?);
        Self::bytes(count)?;
        let mut indices = ArrayVec::new();
        for _ in 0..count {
            let index = u32::from_le_bytes(take(&mut bytes).ok_or(Error::BadParameter)?);
            if usize::try_from(index).map_or(true, |index| index >= PCRS) {
                return Err(Error::PcrOutOfRange);
            }
            indices.push(index);
        }
        Ok(Self(indices))
    }
}

/// Quotes for `nonce`: version, "QUOT", the selection as it was given, the values, the nonce; the signature over
/// these, by PKCS #1 v1.5 with SHA-1; the modulus of the key. The version says, as in other quotes, whether the PAL is
/// one to be debugged. Or makes a step towards all that.
///
/// # Errors
///
/// [`Error::Other`]: the computation of the signature went wrong.
pub fn quote_deprecated(
    identity: &mut Identity,
    banks: &PcrBanks,
    selection: &DeprecatedSelection,
    nonce: &[u8; 20],
    is_debug: bool,
) -> Poll<Result<Vec<u8>, Error>> {
    let indices = &selection.0;
    // At most four.
    let count = u32::try_from(indices.len()).unwrap_or(0).to_le_bytes();
    let values = indices.iter().map(|index| usize::try_from(*index).unwrap_or(PCRS));
    let values = values.flat_map(|index| banks.value(Bank::Sha1, index)).copied();
    let head = version(Bank::Sha1, is_debug).into_iter().chain(FIXED).chain(count);
    let selected = head.chain(indices.iter().flat_map(|index| index.to_le_bytes()));
    let signed: ArrayVec<u8, SIGNED_BYTES_LIMIT> = selected.chain(values).chain(*nonce).collect();
    let key = ready!(identity.public_key());
    let signature = ready!(identity.sign(Bank::Sha1, &signed))?;
    Poll::Ready(joined(&[&signed[..], &signature, &key.modulus]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{in_the_end, test_identity};
    use crate::pcr::PcrIndex;

    fn banks() -> PcrBanks {
        let mut banks = PcrBanks::new();
        banks.extend(PcrIndex::from_number(0).unwrap(), &[0x44; 20]).unwrap();
        banks
    }

    #[test]
    fn the_policy_is_one_value_of_the_first_register() {
        let value = banks().value(Bank::Sha1, 0).try_into().unwrap();
        assert_eq!(deprecated_policy(&PcrBanks::new(), Some(&value)), deprecated_policy(&banks(), None));
        assert!(deprecated_policy(&banks(), None).is_met(&banks()));
        assert!(!deprecated_policy(&banks(), None).is_met(&PcrBanks::new()));
        assert!(!deprecated_policy(&banks(), Some(&[1; 20])).is_met(&banks()));
    }

    #[test]
    fn a_selection_has_at_most_four_registers_that_exist() {
        let selection = |numbers: &[u32]| {
            let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
            DeprecatedSelection::parse(&bytes)
        };
        assert_eq!(selection(&[2, 7, 0]).unwrap().0[..], [7, 0]);
        assert_eq!(selection(&[0]).unwrap().0[..], []);
        assert_eq!(selection(&[5, 0, 0, 0, 0, 0]), Err(Error::BadParameter));
        assert_eq!(selection(&[u32::MAX]), Err(Error::BadParameter));
        assert_eq!(selection(&[2, 0]), Err(Error::BadParameter));
        assert_eq!(selection(&[]), Err(Error::BadParameter));
        assert_eq!(selection(&[1, 8]), Err(Error::PcrOutOfRange));
        assert_eq!((DeprecatedSelection::bytes(4), DeprecatedSelection::bytes(5).is_err()), (Ok(20), true));
    }

    #[test]
    fn a_quote_carries_what_it_signs_and_the_key() {
        let selection = DeprecatedSelection([3, 0].into_iter().collect());
        let mut identity = test_identity();
        let quote =
            in_the_end(|| quote_deprecated(&mut identity, &banks(), &selection, &[7; 20], false)).unwrap();
        let (signed, rest) = quote.split_at(quote.len() - 512);
        let (signature, modulus) = rest.split_at(256);
        let head = [1, 1, 0, 0, b'Q', b'U', b'O', b'T', 2, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0];
        let values = [&[0; 20], banks().value(Bank::Sha1, 0)].concat();
        assert_eq!(signed, [&head[..], &values, &[7; 20]].concat());
        let key = crate::PublicKey::from_bytes(modulus).unwrap();
        assert_eq!(key, in_the_end(|| identity.public_key()));
        assert!(key.verifies(Bank::Sha1, signed, signature));
    }
}
