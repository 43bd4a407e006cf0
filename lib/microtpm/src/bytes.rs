//! Taking structures apart and putting them together: what is short, or memory that is out, is an error, never a
//! panic.

use crate::Error;
use alloc::vec::Vec;

/// Takes the first `N` bytes off `bytes`.
pub(crate) fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*head)
}

/// Takes the first `length` bytes off `bytes`.
pub(crate) fn take_slice<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (head, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(head)
}

/// `parts`, one behind the other, in memory that is asked for once: no copy of them stays behind.
pub(crate) fn joined(parts: &[&[u8]]) -> Result<Vec<u8>, Error> {
    let length = parts.iter().fold(0, |sum: usize, part| sum.saturating_add(part.len()));
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(length).map_err(|_| Error::OutOfMemory)?;
    for part in parts {
        #[expect(clippy::disallowed_methods, reason = "there is room")]
        bytes.extend_from_slice(part);
    }
    Ok(bytes)
}

/// `length` zeros.
pub(crate) fn zeros(length: usize) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(length).map_err(|_| Error::OutOfMemory)?;
    #[expect(clippy::disallowed_methods, reason = "there is room")]
    bytes.resize(length, 0);
    Ok(bytes)
}

/// Returns the bytes that `text` writes in hexadecimal digits.
#[cfg(test)]
pub(crate) fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.chars().filter_map(|c| c.to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}
