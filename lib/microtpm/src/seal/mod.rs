//! Sealed data: what only this machine opens, and only for a PAL whose registers are as they have to be.
//!
//! New blobs are [`current`]; [`original`] ones are opened as well. What is sealed to registers of the SHA-1 bank as
//! they are, as programs of then do, is bound to the same registers of the SHA-256 bank: they say all that decides what
//! runs, and the others do not. What is sealed to other values of the SHA-1 bank is bound to those alone.
//! A new blob is never longer than the
//! original's of the same data and policy would be, so old programs' buffers hold it.
//!
//! What is sealed to a signer opens for any PAL of that signer's same product, from a version on, whatever it consists
//! of. A PAL that was registered to be debugged seals for such PALs alone, and opens nothing that others sealed.

mod current;
mod original;

use crate::Error;
use crate::bank::{Bank, Digest};
use crate::credentials::{Credentials, Signer};
use crate::drbg::HmacDrbg;
use crate::keys::SealKeys;
use crate::pcr::PcrBanks;
use crate::policy::Policy;
use crate::selection::Selection;
use alloc::vec::Vec;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// Most bytes that can be sealed; the original takes 1984.
pub const SEAL_BYTES_LIMIT: usize = 16 << 10;
/// Most bytes of a blob, of either format.
pub const BLOB_BYTES_LIMIT: usize = SEAL_BYTES_LIMIT + 128;

/// What a blob held.
#[derive(Debug, PartialEq, Eq)]
pub struct Unsealed {
    /// The data.
    pub data: Zeroizing<Vec<u8>>,
    /// Digest of the selected registers when it was sealed; zero where the blob has none. Of a digest of the
    /// SHA-256 bank the first 20 bytes: whoever unseals has room for 20, whatever blob it was handed.
    pub digest_at_creation: [u8; 20],
    /// It was sealed while the registers were as they are now, register 0 among them, by the SHA-256 bank: by this very
    /// PAL; or to its signer, by a version of it. Any PAL can seal for another one, so data that is not the PAL's own may
    /// be anybody's choice.
    pub is_own: bool,
}

/// Seals `data`. `with_creation` keeps the selected registers' present digest in the blob.
///
/// # Errors
///
/// [`Error::BadParameter`]: more than [`SEAL_BYTES_LIMIT`].
pub fn seal(
    keys: &SealKeys,
    random: &mut HmacDrbg,
    banks: &PcrBanks,
    credentials: &Credentials,
    policy: Option<&Policy>,
    with_creation: bool,
    data: &[u8],
) -> Result<Vec<u8>, Error> {
    if data.len() > SEAL_BYTES_LIMIT {
        return Err(Error::BadParameter);
    }
    let bound = policy.map(|policy| Bound::new(policy, banks, with_creation));
    current::seal(keys, random, credentials.is_debug, bound.as_ref(), data)
}

/// Seals `data` for PALs of the same signer and product, from the security version `minimum` on.
///
/// # Errors
///
/// [`Error::BadParameter`]: more than [`SEAL_BYTES_LIMIT`], or `minimum` is above the PAL's own version: what a later one
/// holds for its own is not an earlier one's to make. [`Error::NotSigned`]: the PAL has no signer.
pub fn seal_to_signer(
    keys: &SealKeys,
    random: &mut HmacDrbg,
    banks: &PcrBanks,
    credentials: &Credentials,
    minimum: u32,
    data: &[u8],
) -> Result<Vec<u8>, Error> {
    let own = credentials.signer.ok_or(Error::NotSigned)?;
    if data.len() > SEAL_BYTES_LIMIT || minimum > own.version {
        return Err(Error::BadParameter);
    }
    let least = Signer { version: minimum, ..own };
    let bound = Bound::Signer(least, maker(banks));
    current::seal(keys, random, credentials.is_debug, Some(&bound), data)
}

/// Opens a blob of either format.
///
/// # Errors
///
/// [`Error::BadParameter`]: this machine did not seal it; [`Error::Other`]: the PAL is not as it has to be.
pub fn unseal(
    keys: &SealKeys,
    banks: &PcrBanks,
    credentials: &Credentials,
    blob: &[u8],
) -> Result<Unsealed, Error> {
    if blob.len() > BLOB_BYTES_LIMIT {
        return Err(Error::BadParameter);
    }
    // The original's blobs begin with random bytes, which may be anything.
    let opened = match current::open(keys, blob)? {
        Some(opened) => opened,
        None => original::open(keys, blob)?.ok_or(Error::BadParameter)?,
    };
    // Before the registers are asked: a debugged PAL whose registers fit opens nothing of the others', nor they of
    // its.
    if opened.is_debug != credentials.is_debug {
        return Err(Error::Other);
    }
    let Some(bound) = opened.bound else {
        return Ok(Unsealed { data: opened.data, digest_at_creation: [0; 20], is_own: false });
    };
    let (creation, is_own) = bound.opens(banks, credentials.signer.as_ref()).ok_or(Error::Other)?;
    let mut digest_at_creation = [0; 20];
    digest_at_creation.iter_mut().zip(creation).for_each(|(to, from)| *to = from);
    Ok(Unsealed { data: opened.data, digest_at_creation, is_own })
}

/// Bytes that a blob has of a digest of the SHA-256 bank where it was sealed by one of the SHA-1 bank: the buffers of
/// programs of then have no more room.
const OWN_BYTES: usize = 28;

/// What a blob is bound to, as it keeps that.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Bound {
    /// A policy, and the selected registers' digest at creation.
    Policy(Policy, Option<Digest>),
    /// The registers of a selection of the SHA-1 bank, in the SHA-256 bank, as they were at creation.
    Own(Selection, [u8; OWN_BYTES]),
    /// A signer with the least version, and the first bytes of the digest at creation: of the maker's register 0.
    Signer(Signer, [u8; MAKER_BYTES]),
}

impl Bound {
    fn new(policy: &Policy, banks: &PcrBanks, with_creation: bool) -> Self {
        if policy.selection.bank == Bank::Sha1 && policy.is_met(banks) {
            return Self::Own(policy.selection, own_digest(policy.selection, banks));
        }
        let creation = with_creation.then(|| policy.selection.composite_digest(banks));
        Self::Policy(policy.clone(), creation)
    }

    /// Returns the digest at creation, and whether that was this PAL's, where the registers are as they have to be.
    fn opens(self, banks: &PcrBanks, signer: Option<&Signer>) -> Option<(Digest, bool)> {
        match self {
            Self::Policy(policy, creation) => {
                let now = policy.selection.composite_digest(banks);
                let is_own = policy.selection.bank == Bank::Sha256 && creation.as_ref() == Some(&now);
                let opened = (creation.unwrap_or_default(), is_own && policy.selection.has(0));
                policy.is_met(banks).then_some(opened)
            }
            Self::Own(selection, digest) => {
                let is_met = bool::from(own_digest(selection, banks).ct_eq(&digest));
                is_met.then(|| (selection.composite_digest(banks), selection.has(0)))
            }
            Self::Signer(least, maker) => {
                let is_met = signer.is_some_and(|signer| {
                    signer.version >= least.version && Signer { version: least.version, ..*signer } == least
                });
                is_met.then(|| (maker.into_iter().collect(), true))
            }
        }
    }
}

/// Bytes that a blob for a signer has of the digest at creation: as many as whoever unseals has room for.
const MAKER_BYTES: usize = 20;

/// Returns a PAL's name in what it seals for its signer: the first bytes of the digest of its register 0.
fn maker(banks: &PcrBanks) -> [u8; MAKER_BYTES] {
    let digest = Selection { bank: Bank::Sha256, map: Some(1) }.composite_digest(banks);
    let mut maker = [0; MAKER_BYTES];
    maker.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
    maker
}

/// Digest of the registers that `selection` means, in the SHA-256 bank.
fn own_digest(selection: Selection, banks: &PcrBanks) -> [u8; OWN_BYTES] {
    let digest = Selection { bank: Bank::Sha256, ..selection }.composite_digest(banks);
    let mut own = [0; OWN_BYTES];
    own.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
    own
}

/// A blob's content.
#[derive(Debug)]
struct Opened {
    /// A PAL sealed it that was registered to be debugged.
    is_debug: bool,
    bound: Option<Bound>,
    data: Zeroizing<Vec<u8>>,
}

#[cfg(test)]
mod tests;
