//! Sealed data: what only this machine opens, and only for a PAL whose registers are as they have to be.
//!
//! New blobs are [`current`]; [`original`] ones are opened as well. A new blob is never longer than the
//! original's of the same data and policy would be, so old programs' buffers hold it.

mod current;
mod original;

use crate::Error;
use crate::bank::Digest;
use crate::drbg::HmacDrbg;
use crate::keys::SealKeys;
use crate::pcr::PcrBanks;
use crate::policy::Policy;
use alloc::vec::Vec;
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
    policy: Option<&Policy>,
    with_creation: bool,
    data: &[u8],
) -> Result<Vec<u8>, Error> {
    if data.len() > SEAL_BYTES_LIMIT {
        return Err(Error::BadParameter);
    }
    let policy = policy.map(|policy| {
        let creation = with_creation.then(|| policy.selection.composite_digest(banks));
        Bound { policy: policy.clone(), creation }
    });
    current::seal(keys, random, policy.as_ref(), data)
}

/// Opens a blob of either format.
///
/// # Errors
///
/// [`Error::BadParameter`]: this machine did not seal it; [`Error::Other`]: the registers are not as they have to be.
pub fn unseal(keys: &SealKeys, banks: &PcrBanks, blob: &[u8]) -> Result<Unsealed, Error> {
    if blob.len() > BLOB_BYTES_LIMIT {
        return Err(Error::BadParameter);
    }
    // The original's blobs begin with random bytes, which may be anything.
    let opened =
        current::open(keys, blob).or_else(|| original::open(keys, blob)).ok_or(Error::BadParameter)?;
    let Some(bound) = opened.bound else {
        return Ok(Unsealed { data: opened.data, digest_at_creation: [0; 20] });
    };
    if !bound.policy.is_met(banks) {
        return Err(Error::Other);
    }
    let mut digest_at_creation = [0; 20];
    let creation = bound.creation.unwrap_or_default();
    digest_at_creation.iter_mut().zip(creation).for_each(|(to, from)| *to = from);
    Ok(Unsealed { data: opened.data, digest_at_creation })
}

/// A policy, as a blob keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Bound {
    policy: Policy,
    creation: Option<Digest>,
}

/// A blob's content.
#[derive(Debug)]
struct Opened {
    bound: Option<Bound>,
    data: Zeroizing<Vec<u8>>,
}

#[cfg(test)]
mod tests;
