//! The format of new blobs: a tag of four bytes, the nonce, what AES-256-GCM makes of the content, its MAC.
//!
//! The content is a byte for its form, then for a bound blob the selection, the digest at release and, in one
//! of two forms, that at creation; then the data. Nonces are random: SP 800-38D bounds a key's use to 2^32
//! blobs, and a key lives as long as the root secret.

use super::{Bound, Opened};
use crate::Error;
use crate::bank::Digest;
use crate::bytes::{take, take_slice};
use crate::drbg::HmacDrbg;
use crate::keys::SealKeys;
use crate::policy::Policy;
use crate::selection::Selection;
use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce, Tag};
use alloc::vec::Vec;
use zeroize::Zeroizing;

/// What a blob begins with: name and version of the format.
const TAG: [u8; 4] = *b"uTP\x02";
const NONCE_BYTES: usize = 12;
const MAC_BYTES: usize = 16;

/// Form of a blob that is bound to nothing.
const UNBOUND: u8 = 0;
/// Form of a bound blob with the digest at creation.
const WITH_CREATION: u8 = 1;
/// Form of a bound blob without it.
const WITHOUT_CREATION: u8 = 2;

pub(super) fn seal(
    keys: &SealKeys,
    random: &mut HmacDrbg,
    bound: Option<&Bound>,
    data: &[u8],
) -> Result<Vec<u8>, Error> {
    let mut content = content(bound, data);
    let mut nonce = [0; NONCE_BYTES];
    random.generate(&mut nonce);
    let mac = Aes256Gcm::new(&keys.gcm.into())
        .encrypt_inout_detached(&Nonce::from(nonce), &TAG, content.as_mut_slice().into())
        .map_err(|_| Error::Other)?;
    Ok([&TAG[..], &nonce, &content, &mac].concat())
}

/// The content before it is encrypted; allocated at once, so that no copy of it stays behind.
fn content(bound: Option<&Bound>, data: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut content = Zeroizing::new(Vec::with_capacity(data.len() + 1 + crate::PCR_INFO_BYTES_LIMIT));
    match bound {
        None => content.push(UNBOUND),
        Some(Bound { policy, creation }) => {
            content.push(if creation.is_some() { WITH_CREATION } else { WITHOUT_CREATION });
            content.extend(policy.selection.to_bytes());
            content.extend_from_slice(&policy.digest_at_release);
            content.extend(creation.iter().flatten());
        }
    }
    content.extend_from_slice(data);
    content
}

pub(super) fn open(keys: &SealKeys, mut blob: &[u8]) -> Option<Opened> {
    if take(&mut blob)? != TAG {
        return None;
    }
    let nonce: [u8; NONCE_BYTES] = take(&mut blob)?;
    let (encrypted, mac) = blob.split_last_chunk::<MAC_BYTES>()?;
    let mut content = Zeroizing::new(Vec::from(encrypted));
    Aes256Gcm::new(&keys.gcm.into())
        .decrypt_inout_detached(&Nonce::from(nonce), &TAG, content.as_mut_slice().into(), &Tag::from(*mac))
        .ok()?;
    let mut rest = &content[..];
    let bound = match take(&mut rest)? {
        [UNBOUND] => None,
        [WITH_CREATION] => Some(take_bound(&mut rest, true)?),
        [WITHOUT_CREATION] => Some(take_bound(&mut rest, false)?),
        _ => return None,
    };
    Some(Opened { bound, data: Zeroizing::new(rest.into()) })
}

/// Takes a policy, and where it is there the digest at creation, off `rest`.
pub(super) fn take_bound(rest: &mut &[u8], with_creation: bool) -> Option<Bound> {
    let selection = Selection::take(rest).ok()?;
    let mut digest = || -> Option<Digest> {
        Some(take_slice(rest, selection.bank.digest_bytes())?.iter().copied().collect())
    };
    let digest_at_release = digest()?;
    let creation = if with_creation { Some(digest()?) } else { None };
    Some(Bound { policy: Policy { selection, digest_at_release }, creation })
}
