//! Memory that may not be there. On a host only pages that were unmapped are known to be missing: any other address that
//! is not there ends the test.

use super::address_space::require;
use crate::Unmapped;
use core::sync::atomic::{AtomicU64, Ordering};

/// Copies `bytes.len()` bytes at `from` out.
///
/// # Errors
///
/// [`Unmapped`] where the first byte is in a page that was unmapped.
///
/// # Safety
///
/// As on the real machine, and all of it is there but for pages that were unmapped.
pub unsafe fn try_read(from: *const u8, bytes: &mut [u8]) -> Result<(), Unmapped> {
    require(from.addr() as u64)?;
    // SAFETY: by the caller's duties.
    unsafe { core::ptr::copy(from, bytes.as_mut_ptr(), bytes.len()) };
    Ok(())
}

/// Reads `words.len()` aligned words at `from`.
///
/// # Errors
///
/// [`Unmapped`] where the first byte is in a page that was unmapped.
///
/// # Safety
///
/// As for [`try_read`].
pub unsafe fn try_read_words(from: *const u64, words: &mut [u64]) -> Result<(), Unmapped> {
    require(from.addr() as u64)?;
    // SAFETY: by the caller's duties.
    unsafe { core::ptr::copy(from, words.as_mut_ptr(), words.len()) };
    Ok(())
}

/// Copies `bytes` to `to`.
///
/// # Errors
///
/// [`Unmapped`] where the first byte is in a page that was unmapped.
///
/// # Safety
///
/// As on the real machine, and all of it is there but for pages that were unmapped.
pub unsafe fn try_write(to: *mut u8, bytes: &[u8]) -> Result<(), Unmapped> {
    require(to.addr() as u64)?;
    // SAFETY: by the caller's duties.
    unsafe { core::ptr::copy(bytes.as_ptr(), to, bytes.len()) };
    Ok(())
}

/// Writes `new` to the aligned word at `to` if it is `current`, atomically, and says whether it was.
///
/// # Errors
///
/// [`Unmapped`] where the first byte is in a page that was unmapped.
///
/// # Safety
///
/// As for [`try_write`].
pub unsafe fn try_compare_exchange(to: *mut u64, current: u64, new: u64) -> Result<bool, Unmapped> {
    require(to.addr() as u64)?;
    // SAFETY: by the caller's duties.
    let word = unsafe { AtomicU64::from_ptr(to) };
    Ok(word.compare_exchange(current, new, Ordering::SeqCst, Ordering::SeqCst).is_ok())
}

/// Stores the lower `width` bytes of `value` at `to`: 1, 2, 4 or 8.
///
/// # Errors
///
/// [`Unmapped`] where the first byte is in a page that was unmapped.
///
/// # Safety
///
/// As for [`try_write`].
pub unsafe fn try_store(to: *mut u8, width: u8, value: u64) -> Result<(), Unmapped> {
    // SAFETY: by the caller's duties.
    unsafe { try_write(to, &value.to_le_bytes()[..usize::from(width)]) }
}
