//! The format of new blobs: a tag of four bytes, the nonce, what AES-256-GCM makes of the content, its MAC.
//!
//! The content is a byte for its form, then for a bound blob the selection, the digest at release and, in one of two
//! forms, that at creation; in a third the selection is of the SHA-1 bank, and the digest 28 bytes of that of the same
//! registers in the SHA-256 bank; in a fourth there are a signer's digest, product and least version, and the first 20
//! bytes of the digest at creation. 0x80 is added to the form where the PAL was one to be debugged. Then comes the data.
//! Nonces are random: SP 800-38D bounds a key's use to 2^32
//! blobs, and a key lives as long as the root secret.

use super::{Bound, Opened};
use crate::Error;
use crate::bank::Digest;
use crate::bytes::{joined, take, take_slice};
use crate::credentials::Signer;
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
/// Form of a blob that was sealed to registers of the SHA-1 bank as they were.
const OWN: u8 = 3;
/// Form of a blob that was sealed to a signer.
const SIGNER: u8 = 4;
/// Added to the form of what a PAL sealed that was registered to be debugged.
const DEBUG: u8 = 0x80;

pub(super) fn seal(
    keys: &SealKeys,
    random: &mut HmacDrbg,
    is_debug: bool,
    bound: Option<&Bound>,
    data: &[u8],
) -> Result<Vec<u8>, Error> {
    let mut content = content(is_debug, bound, data)?;
    let mut nonce = [0; NONCE_BYTES];
    random.generate(&mut nonce);
    let mac = Aes256Gcm::new(&keys.gcm.into())
        // The tag is authenticated too: no other format's blob is ever taken for one of this.
        .encrypt_inout_detached(&Nonce::from(nonce), &TAG, content.as_mut_slice().into())
        .map_err(|_| Error::Other)?;
    joined(&[&TAG[..], &nonce, &content, &mac])
}

/// Returns the content before it is encrypted.
fn content(is_debug: bool, bound: Option<&Bound>, data: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
    let form = |form| [form | if is_debug { DEBUG } else { 0 }];
    let content = match bound {
        None => joined(&[&form(UNBOUND), data]),
        Some(Bound::Own(selection, digest)) => joined(&[&form(OWN), &selection.to_bytes(), digest, data]),
        Some(Bound::Signer(least, maker)) => {
            let (product, version) = (least.product.to_le_bytes(), least.version.to_le_bytes());
            joined(&[&form(SIGNER), &least.digest, &product, &version, maker, data])
        }
        Some(Bound::Policy(policy, None)) => {
            joined(&[&form(WITHOUT_CREATION), &policy.selection.to_bytes(), &policy.digest_at_release, data])
        }
        Some(Bound::Policy(policy, Some(creation))) => {
            let (selection, release) = (policy.selection.to_bytes(), &policy.digest_at_release);
            joined(&[&form(WITH_CREATION), &selection, release, creation, data])
        }
    };
    content.map(Zeroizing::new)
}

pub(super) fn open(keys: &SealKeys, mut blob: &[u8]) -> Result<Option<Opened>, Error> {
    let Some((nonce, encrypted, mac)) = parts(&mut blob) else { return Ok(None) };
    let mut content = Zeroizing::new(joined(&[encrypted])?);
    let decrypted = Aes256Gcm::new(&keys.gcm.into()).decrypt_inout_detached(
        &Nonce::from(nonce),
        &TAG,
        content.as_mut_slice().into(),
        &Tag::from(*mac),
    );
    if decrypted.is_err() {
        return Ok(None);
    }
    let mut rest = &content[..];
    let Some((is_debug, bound)) = take_form(&mut rest) else { return Ok(None) };
    Ok(Some(Opened { is_debug, bound, data: Zeroizing::new(joined(&[rest])?) }))
}

/// Nonce, content and MAC of a blob.
fn parts<'a>(blob: &mut &'a [u8]) -> Option<([u8; NONCE_BYTES], &'a [u8], &'a [u8; MAC_BYTES])> {
    if take(blob)? != TAG {
        return None;
    }
    let nonce = take(blob)?;
    let (encrypted, mac) = blob.split_last_chunk::<MAC_BYTES>()?;
    Some((nonce, encrypted, mac))
}

/// Takes whether the content is a debugged PAL's, and what it is bound to, off `rest`.
fn take_form(rest: &mut &[u8]) -> Option<(bool, Option<Bound>)> {
    let [form] = take(rest)?;
    let bound = match form & !DEBUG {
        UNBOUND => None,
        WITH_CREATION => Some(take_bound(rest, true)?),
        WITHOUT_CREATION => Some(take_bound(rest, false)?),
        OWN => Some(Bound::Own(Selection::take(rest).ok()?, take(rest)?)),
        SIGNER => Some(take_signer(rest)?),
        _ => return None,
    };
    Some((form & DEBUG != 0, bound))
}

fn take_signer(rest: &mut &[u8]) -> Option<Bound> {
    let digest = take(rest)?;
    let (product, version) = (u32::from_le_bytes(take(rest)?), u32::from_le_bytes(take(rest)?));
    Some(Bound::Signer(Signer { digest, product, version }, take(rest)?))
}

/// Takes a policy, and where it is there the digest at creation, off `rest`.
pub(super) fn take_bound(rest: &mut &[u8], with_creation: bool) -> Option<Bound> {
    let selection = Selection::take(rest).ok()?;
    let mut digest = || -> Option<Digest> {
        Some(take_slice(rest, selection.bank.digest_bytes())?.iter().copied().collect())
    };
    let digest_at_release = digest()?;
    let creation = if with_creation { Some(digest()?) } else { None };
    Some(Bound::Policy(Policy { selection, digest_at_release }, creation))
}
