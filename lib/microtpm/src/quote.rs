//! Quotes: a signature that says what a PAL's registers are.
//!
//! Signed is the original's TPM_QUOTE_INFO: a version, "QUOT", the digest of the composite, the nonce. For
//! the SHA-1 bank the version is 1.1.0.0, digest and nonce have 20 bytes, and the signature is PKCS #1 v1.5 with
//! SHA-1. For the SHA-256 bank the version is 2.0.0.0, both have 32 bytes, and the signature is with SHA-256. The
//! version's last number is 1 where a PAL is quoted that was registered to be debugged.

use crate::Error;
use crate::bank::{Bank, Digest};
use crate::identity::{Identity, Signature};
use crate::pcr::PcrBanks;
use crate::selection::{Composite, Selection};
use arrayvec::ArrayVec;
use core::task::{Poll, ready};

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
    /// The PAL was registered to be debugged.
    pub is_debug: bool,
}

/// What a PAL gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quote {
    /// The signature over a [`QuoteInfo`].
    pub signature: Signature,
    /// The selection and the values that it signs.
    pub composite: Composite,
}

impl QuoteInfo {
    /// What a quote of `composite` for `nonce` signs.
    #[must_use]
    pub fn new(bank: Bank, composite: &[u8], nonce: Digest, is_debug: bool) -> Self {
        Self { bank, composite_digest: bank.hash(&[composite]), nonce, is_debug }
    }

    /// Returns the structure as it is signed.
    #[must_use]
    pub fn to_bytes(&self) -> ArrayVec<u8, { 8 + 2 * NONCE_BYTES_LIMIT }> {
        let head = version(self.bank, self.is_debug).into_iter().chain(FIXED);
        head.chain(self.composite_digest.iter().chain(&self.nonce).copied()).collect()
    }
}

/// Returns the version of the structure for `bank`.
pub(crate) const fn version(bank: Bank, is_debug: bool) -> [u8; 4] {
    match bank {
        Bank::Sha1 => [1, 1, 0, is_debug as u8],
        Bank::Sha256 => [2, 0, 0, is_debug as u8],
    }
}

/// Quotes the registers of `selection` for `nonce`, of a PAL that was registered to be debugged or not, or makes a step
/// towards that.
///
/// # Errors
///
/// [`Error::BadParameter`]: the nonce has not the length of a digest of the bank; [`Error::Other`]: the computation of the
/// signature went wrong.
pub fn quote(
    identity: &mut Identity,
    banks: &PcrBanks,
    selection: Selection,
    nonce: &[u8],
    is_debug: bool,
) -> Poll<Result<Quote, Error>> {
    if nonce.len() != selection.bank.digest_bytes() {
        return Poll::Ready(Err(Error::BadParameter));
    }
    let composite = selection.composite(banks);
    let info = QuoteInfo::new(selection.bank, &composite, nonce.iter().copied().collect(), is_debug);
    let signature = ready!(identity.sign(selection.bank, &info.to_bytes()))?;
    Poll::Ready(Ok(Quote { signature, composite }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::hex;
    use crate::identity::{in_the_end, test_identity};
    use crate::pcr::PcrIndex;

    fn banks() -> PcrBanks {
        let mut banks = PcrBanks::new();
        banks.extend(PcrIndex::from_number(0).unwrap(), &[0x44; 20]).unwrap();
        banks
    }

    #[test]
    fn the_structure_is_the_originals() {
        let composite = Selection { bank: Bank::Sha1, map: Some(1) }.composite(&banks());
        let info = QuoteInfo::new(Bank::Sha1, &composite, [7; 20].into_iter().collect(), false);
        // "1.1.0.0", "QUOT", and the digest from a script over Python's hashlib.
        let expected =
            [hex("01010000 51554f54 958548b5fd90f125723349cd1785d3e8ba5d04d5"), vec![7; 20]].concat();
        assert_eq!(info.to_bytes()[..], expected);
        let debug = QuoteInfo { is_debug: true, ..info };
        assert_eq!((debug.to_bytes()[3], &debug.to_bytes()[4..]), (1, &expected[4..]));
    }

    #[test]
    fn the_structure_of_the_other_bank_is_longer() {
        let composite = Selection { bank: Bank::Sha256, map: Some(1) }.composite(&banks());
        let info = QuoteInfo::new(Bank::Sha256, &composite, [7; 32].into_iter().collect(), false);
        let expected = [
            hex("02000000 51554f54 fd8bf605c21ac4aeeeb76982b48054553455fb2c2359e024b7587776abd6591e"),
            vec![7; 32],
        ]
        .concat();
        assert_eq!(info.to_bytes()[..], expected);
    }

    #[test]
    fn a_quote_verifies_for_its_nonce_and_composite() {
        let mut identity = test_identity();
        let key = in_the_end(|| identity.public_key());
        for (bank, is_debug) in [(Bank::Sha1, false), (Bank::Sha256, false), (Bank::Sha256, true)] {
            let nonce: Digest = (0..bank.digest_bytes() as u8).collect();
            let selection = Selection { bank, map: Some(0b11) };
            let quote = in_the_end(|| quote(&mut identity, &banks(), selection, &nonce, is_debug)).unwrap();
            assert_eq!(quote.composite, selection.composite(&banks()));
            let verifies_as = |composite: &[u8], nonce: &Digest, is_debug| {
                let info = QuoteInfo::new(bank, composite, nonce.clone(), is_debug).to_bytes();
                key.verifies(bank, &info, &quote.signature)
            };
            let verifies = |composite: &[u8], nonce: &Digest| verifies_as(composite, nonce, is_debug);
            assert!(verifies(&quote.composite, &nonce));
            assert!(!verifies_as(&quote.composite, &nonce, !is_debug));
            assert!(!verifies(&quote.composite, &nonce.iter().rev().copied().collect()));
            assert!(!verifies(&selection.composite(&PcrBanks::new()), &nonce));
        }
    }

    #[test]
    fn a_nonce_of_another_length_is_refused() {
        for (bank, length) in [(Bank::Sha1, 32), (Bank::Sha256, 20), (Bank::Sha1, 0)] {
            let selection = Selection { bank, map: Some(1) };
            let refused = quote(&mut test_identity(), &banks(), selection, &vec![0; length], false);
            assert_eq!(refused, Poll::Ready(Err(Error::BadParameter)));
        }
    }
}
