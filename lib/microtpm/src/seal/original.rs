//! The original's format: the IV, what AES-128-CBC makes of the content, HMAC-SHA1 over both.
//!
//! The content is TPM_PCR_INFO (or, bound to nothing, a u16 zero), u32 length of the data, the data, and zeros
//! up to a block's end.

use super::current::take_bound;
use super::{Bound, Opened};
use crate::bank::Bank;
use crate::bytes::{take, take_slice};
use crate::keys::SealKeys;
use aes::Aes128;
use alloc::vec::Vec;
use cbc::cipher::{BlockModeDecrypt, KeyIvInit, block_padding::NoPadding};
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use zeroize::Zeroizing;

const MAC_BYTES: usize = 20;

pub(super) fn open(keys: &SealKeys, blob: &[u8]) -> Option<Opened> {
    let (sealed, mac) = blob.split_last_chunk::<MAC_BYTES>()?;
    let mut expected = Hmac::<Sha1>::new_from_slice(&keys.mac).ok()?;
    expected.update(sealed);
    // Constant in time, as `hmac` compares by `subtle`.
    expected.verify_slice(mac).ok()?;
    let (iv, encrypted) = sealed.split_first_chunk::<16>()?;
    let mut content = Zeroizing::new(Vec::from(encrypted));
    cbc::Decryptor::<Aes128>::new(&keys.cbc.into(), &(*iv).into())
        .decrypt_padded::<NoPadding>(&mut content)
        .ok()?;
    let mut rest = &content[..];
    let bound = take_info(&mut rest)?;
    let length = usize::try_from(u32::from_le_bytes(take(&mut rest)?)).ok()?;
    Some(Opened { bound, data: Zeroizing::new(take_slice(&mut rest, length)?.into()) })
}

/// Takes the TPM_PCR_INFO off `rest`; none of the original's has the flag of another bank.
fn take_info(rest: &mut &[u8]) -> Option<Option<Bound>> {
    if rest.starts_with(&[0, 0]) {
        *rest = &rest[2..];
        return Some(None);
    }
    let bound = take_bound(rest, true)?;
    (bound.policy.selection.bank == Bank::Sha1).then_some(Some(bound))
}
