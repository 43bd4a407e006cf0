//! Quotes: a signature that says what a PAL's registers are.
//!
//! Signed is the original's TPM_QUOTE_INFO: a version, "QUOT", the digest of the composite, the nonce. For
//! the SHA-1 bank the version is 1.1.0.0, digest and nonce have 20 bytes, and the signature is PKCS #1 v1.5 with
//! SHA-1. For the SHA-256 bank the version is 2.0.0.0, both have 32 bytes, and the signature is with SHA-256.

use crate::Error;
use crate::bank::{Bank, Digest};
use crate::drbg::HmacDrbg;
use crate::identity::SigningKey;
use crate::pcr::PcrBanks;
use crate::public_key::MODULUS_BYTES;
use crate::selection::{Composite, Selection};
use arrayvec::ArrayVec;

/// Most bytes of a nonce, which has as many as a digest of the quote's bank.
pub const NONCE_BYTES_LIMIT: usize = crate::bank::DIGEST_BYTES_LIMIT;

/// What every quote has behind its version.
pub(crate) const FIXED: [u8; 4] = *b"QUOT";

/// What is signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuoteInfo {
    /// The bank that the quote is of.
    pub bank: Bank,
    /// Digest of the composite.
    pub composite_digest: Digest,
    /// What the verifier asked with.
    pub nonce: Digest,
}

/// What a PAL gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quote {
    /// The signature over a [`QuoteInfo`].
    pub signature: [u8; MODULUS_BYTES],
    /// The selection and the values that it signs.
    pub composite: Composite,
}

impl QuoteInfo {
    /// What a quote of `composite` for `nonce` signs.
    #[must_use]
    pub fn new(bank: Bank, composite: &[u8], nonce: Digest) -> Self {
        Self { bank, composite_digest: bank.hash(&[composite]), nonce }
    }

    /// The structure as it is signed.
    #[must_use]
    pub fn to_bytes(&self) -> ArrayVec<u8, { 8 + 2 * NONCE_BYTES_LIMIT }> {
        let head = version(self.bank).into_iter().chain(FIXED);
        head.chain(self.composite_digest.iter().chain(&self.nonce).copied()).collect()
    }
}

/// The version of the structure for `bank`.
pub(crate) const fn version(bank: Bank) -> [u8; 4] {
    match bank {
        Bank::Sha1 => [1, 1, 0, 0],
        Bank::Sha256 => [2, 0, 0, 0],
    }
}

/// Quotes the registers of `selection` for `nonce`.
///
/// # Errors
///
/// [`Error::BadParameter`]: the nonce has not the length of a digest of the bank.
pub fn quote(
    key: &SigningKey,
    random: &mut HmacDrbg,
    banks: &PcrBanks,
    selection: Selection,
    nonce: &[u8],
) -> Result<Quote, Error> {
    if nonce.len() != selection.bank.digest_bytes() {
        return Err(Error::BadParameter);
    }
    let composite = selection.composite(banks);
    let info = QuoteInfo::new(selection.bank, &composite, nonce.iter().copied().collect());
    let signature = key.sign(random, selection.bank, &info.to_bytes())?;
    Ok(Quote { signature, composite })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::hex;
    use crate::identity::test_key;
    use crate::pcr::PcrIndex;

    fn banks() -> PcrBanks {
        let mut banks = PcrBanks::new();
        banks.extend(PcrIndex::from_number(0).unwrap(), &[0x44; 20]).unwrap();
        banks
    }

    #[test]
    fn the_structure_is_the_originals() {
        let composite = Selection { bank: Bank::Sha1, map: Some(1) }.composite(&banks());
        let info = QuoteInfo::new(Bank::Sha1, &composite, [7; 20].into_iter().collect());
        // "1.1.0.0", "QUOT", and the digest from a script over Python's hashlib.
        let expected =
            [hex("01010000 51554f54 958548b5fd90f125723349cd1785d3e8ba5d04d5"), vec![7; 20]].concat();
        assert_eq!(info.to_bytes()[..], expected);
    }

    #[test]
    fn the_structure_of_the_other_bank_is_longer() {
        let composite = Selection { bank: Bank::Sha256, map: Some(1) }.composite(&banks());
        let info = QuoteInfo::new(Bank::Sha256, &composite, [7; 32].into_iter().collect());
        let expected = [
            hex("02000000 51554f54 fd8bf605c21ac4aeeeb76982b48054553455fb2c2359e024b7587776abd6591e"),
            vec![7; 32],
        ]
        .concat();
        assert_eq!(info.to_bytes()[..], expected);
    }

    #[test]
    fn a_quote_verifies_for_its_nonce_and_composite() {
        let (key, mut random) = (test_key(), HmacDrbg::new(&[b"blinding"]));
        for bank in [Bank::Sha1, Bank::Sha256] {
            let nonce: Digest = (0..bank.digest_bytes() as u8).collect();
            let selection = Selection { bank, map: Some(0b11) };
            let quote = quote(&key, &mut random, &banks(), selection, &nonce).unwrap();
            assert_eq!(quote.composite, selection.composite(&banks()));
            let verifies = |composite: &[u8], nonce: &Digest| {
                let info = QuoteInfo::new(bank, composite, nonce.clone()).to_bytes();
                key.public_key().verifies(bank, &info, &quote.signature)
            };
            assert!(verifies(&quote.composite, &nonce));
            assert!(!verifies(&quote.composite, &nonce.iter().rev().copied().collect()));
            assert!(!verifies(&selection.composite(&PcrBanks::new()), &nonce));
        }
    }

    #[test]
    fn a_nonce_of_another_length_is_refused() {
        let mut random = HmacDrbg::new(&[b"blinding"]);
        for (bank, length) in [(Bank::Sha1, 32), (Bank::Sha256, 20), (Bank::Sha1, 0)] {
            let selection = Selection { bank, map: Some(1) };
            let refused = quote(&test_key(), &mut random, &banks(), selection, &vec![0; length]);
            assert_eq!(refused, Err(Error::BadParameter));
        }
    }
}
