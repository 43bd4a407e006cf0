//! The original's format: the IV, what AES-128-CBC makes of the content, HMAC-SHA1 over both.
//!
//! The content is TPM_PCR_INFO (or, bound to nothing, a u16 zero), u32 length of the data, the data, and zeros
//! up to a block's end.

use super::current::take_bound;
use super::{Bound, Opened};
use crate::Error;
use crate::bank::Bank;
use crate::bytes::{joined, take, take_slice};
use crate::keys::SealKeys;
use aes::Aes128;
use cbc::cipher::{BlockModeDecrypt, KeyIvInit, block_padding::NoPadding};
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use zeroize::Zeroizing;

const MAC_BYTES: usize = 20;

pub(super) fn open(keys: &SealKeys, blob: &[u8]) -> Result<Option<Opened>, Error> {
    // Before anything is decrypted, so that what a forged blob decrypts to shows nowhere.
    let Some((iv, encrypted)) = genuine(keys, blob) else { return Ok(None) };
    let mut content = Zeroizing::new(joined(&[encrypted])?);
    let decrypted = cbc::Decryptor::<Aes128>::new(&keys.cbc.into(), &(*iv).into())
        .decrypt_padded::<NoPadding>(&mut content);
    let Ok(content) = decrypted else { return Ok(None) };
    let Some((bound, data)) = take_content(content) else { return Ok(None) };
    Ok(Some(Opened { is_debug: false, bound, data: Zeroizing::new(joined(&[data])?) }))
}

/// IV and content of a blob whose MAC is right.
fn genuine<'a>(keys: &SealKeys, blob: &'a [u8]) -> Option<(&'a [u8; 16], &'a [u8])> {
    let (sealed, mac) = blob.split_last_chunk::<MAC_BYTES>()?;
    let mut expected = Hmac::<Sha1>::new_from_slice(&keys.mac).ok()?;
    expected.update(sealed);
    // Constant in time, as `hmac` compares by `subtle`.
    expected.verify_slice(mac).ok()?;
    sealed.split_first_chunk::<16>()
}

fn take_content(content: &[u8]) -> Option<(Option<Bound>, &[u8])> {
    let mut rest = content;
    let bound = take_info(&mut rest)?;
    let length = usize::try_from(u32::from_le_bytes(take(&mut rest)?)).ok()?;
    Some((bound, take_slice(&mut rest, length)?))
}

/// Takes the TPM_PCR_INFO off `rest`; none of the original's has the flag of another bank.
fn take_info(rest: &mut &[u8]) -> Option<Option<Bound>> {
    if rest.starts_with(&[0, 0]) {
        *rest = &rest[2..];
        return Some(None);
    }
    let bound = take_bound(rest, true)?;
    let is_originals = matches!(&bound, Bound::Policy(policy, _) if policy.selection.bank == Bank::Sha1);
    is_originals.then_some(Some(bound))
}
