//! A quote as a program hands it on to who verifies it: composite, nonce, signature.
//!
//! The nonce is in it so that a verifier can tell a quote that answers another question from one that is forged.

use crate::bank::{Bank, Digest};
use crate::bytes::{take, take_slice};
use crate::public_key::{MODULUS_BYTES, PublicKey};
use crate::quote::{Quote, QuoteInfo};
use crate::selection::Selection;
use alloc::vec::Vec;

/// A quote's file: the composite and the signature as QUOTE gave them, and between them the nonce it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuoteFile {
    /// The registers that are quoted.
    pub selection: Selection,
    /// The quote.
    pub quote: Quote,
    /// What was asked with.
    pub nonce: Digest,
}

impl QuoteFile {
    /// Returns the file.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        [&self.quote.composite[..], &self.nonce, &self.quote.signature].concat()
    }

    /// Reads a file; `None` where it is none.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes;
        let selection = Selection::take(&mut rest).ok()?;
        let digest_bytes = selection.bank.digest_bytes();
        let values = usize::try_from(u32::from_be_bytes(take(&mut rest)?)).ok()?;
        take_slice(&mut rest, values).filter(|_| values == selection.indices().count() * digest_bytes)?;
        let composite = bytes[..bytes.len() - rest.len()].try_into().ok()?;
        let nonce = take_slice(&mut rest, digest_bytes)?.iter().copied().collect();
        let signature: [u8; MODULUS_BYTES] = rest.try_into().ok()?;
        Some(Self { selection, quote: Quote { signature, composite }, nonce })
    }

    /// Returns whether `key` signed this composite for this nonce, of a PAL that was registered to be debugged, or not.
    #[must_use]
    pub fn is_signed_by(&self, key: &PublicKey, is_debug: bool) -> bool {
        let info = QuoteInfo::new(self.bank(), &self.quote.composite, self.nonce.clone(), is_debug);
        key.verifies(self.bank(), &info.to_bytes(), &self.quote.signature)
    }

    /// Returns the bank that is quoted.
    #[must_use]
    pub fn bank(&self) -> Bank {
        self.selection.bank
    }

    /// Returns the quoted value of register `index`.
    #[must_use]
    pub fn value(&self, index: usize) -> Option<&[u8]> {
        let position = self.selection.indices().position(|selected| selected == index)?;
        let values = self.selection.indices().count() * self.bank().digest_bytes();
        let start = self.quote.composite.len().checked_sub(values)?;
        self.quote.composite[start..].chunks(self.bank().digest_bytes()).nth(position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{in_the_end, test_identity};
    use crate::pcr::{PcrBanks, PcrIndex};
    use proptest::prelude::*;
    use std::sync::LazyLock;

    fn file(bank: Bank, map: u8) -> QuoteFile {
        let mut banks = PcrBanks::new();
        banks.extend(PcrIndex::from_number(2).unwrap(), &[9; 20]).unwrap();
        let selection = Selection { bank, map: Some(map) };
        let nonce: Digest = (0..bank.digest_bytes() as u8).collect();
        let mut identity = test_identity();
        let quote = in_the_end(|| crate::quote(&mut identity, &banks, selection, &nonce, false)).unwrap();
        QuoteFile { selection, quote, nonce }
    }

    #[test]
    fn a_file_reads_as_it_was_written_and_is_signed() {
        let key = in_the_end(|| test_identity().public_key());
        for bank in [Bank::Sha1, Bank::Sha256] {
            for map in [0, 0b101, 0xff] {
                let file = file(bank, map);
                assert_eq!(QuoteFile::parse(&file.to_bytes()).as_ref(), Some(&file));
                assert!(file.is_signed_by(&key, false));
                assert!(!file.is_signed_by(&key, true));
                let other = QuoteFile { nonce: file.nonce.iter().map(|byte| byte + 1).collect(), ..file };
                assert!(!other.is_signed_by(&key, false));
            }
        }
    }

    #[test]
    fn values_go_by_register() {
        let file = file(Bank::Sha256, 0b101);
        assert_eq!(file.value(0), Some(&[0; 32][..]));
        assert_eq!(file.value(2), Some(&Bank::Sha256.hash(&[&[0; 32], &[9; 20]])[..]));
        assert_eq!((file.value(1), file.value(3), file.value(usize::MAX)), (None, None, None));
    }

    proptest! {
        #[test]
        fn what_is_no_file_is_refused(bytes: Vec<u8>, cut in 0_usize..400) {
            prop_assert!(QuoteFile::parse(&bytes).is_none() || bytes.len() > MODULUS_BYTES);
            static FILE: LazyLock<Vec<u8>> = LazyLock::new(|| file(Bank::Sha1, 1).to_bytes());
            let file = &*FILE;
            prop_assert_eq!(QuoteFile::parse(&file[..cut.min(file.len())]).is_some(), cut >= file.len());
            prop_assert!(QuoteFile::parse(&[&file[..], &[0]].concat()).is_none());
        }
    }
}
