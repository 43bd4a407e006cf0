//! Memory that may not be there: accesses whose faults are caught by the exception table.

use crate::{Unmapped, guarded};
use core::arch::asm;

/// Bytes of a word.
const WORD: usize = size_of::<u64>();

/// Copies `bytes.len()` bytes at `from` out.
///
/// # Errors
///
/// [`Unmapped`] where not all of them can be read; `bytes` is unspecified then.
///
/// # Safety
///
/// What is mapped there, if anything, may be read at any time: no memory that is being written through a Rust
/// reference, and no device but one whose registers are the reader's.
pub unsafe fn try_read(from: *const u8, bytes: &mut [u8]) -> Result<(), Unmapped> {
    // SAFETY: `bytes` is the caller's to write; the rest by the contract.
    unsafe { try_copy(from, bytes.as_mut_ptr(), bytes.len()) }
}

/// Reads `words.len()` aligned words at `from`, each at once.
///
/// # Errors
///
/// [`Unmapped`] where not all of them can be read; `words` is unspecified then.
///
/// # Safety
///
/// As for [`try_read`].
#[inline]
pub unsafe fn try_read_words(from: *const u64, words: &mut [u64]) -> Result<(), Unmapped> {
    let mut left = words.len();
    // SAFETY: by the contract; a fault leaves the count of what is left, and is caught by the table row.
    unsafe {
        asm!("2: rep movsq", "3:", guarded!(), inout("rcx") left,
            inout("rsi") from => _, inout("rdi") words.as_mut_ptr() => _, options(nostack, preserves_flags));
    }
    if left == 0 { Ok(()) } else { Err(Unmapped) }
}

/// Copies `bytes` to `to`.
///
/// # Errors
///
/// [`Unmapped`] where not all of them can be written; some may have been then.
///
/// # Safety
///
/// What is mapped there, if anything, may be written at any time: no Rust object lies in it.
pub unsafe fn try_write(to: *mut u8, bytes: &[u8]) -> Result<(), Unmapped> {
    // SAFETY: by the contract.
    unsafe { try_copy(bytes.as_ptr(), to, bytes.len()) }
}

/// Writes `new` to the aligned word at `to` if it is `current`, atomically, and says whether it was.
///
/// # Errors
///
/// [`Unmapped`] where the word cannot be written.
///
/// # Safety
///
/// As for [`try_write`].
pub unsafe fn try_compare_exchange(to: *mut u64, current: u64, new: u64) -> Result<bool, Unmapped> {
    let (fault, is_equal): (u32, u8);
    // SAFETY: by the contract; a fault is caught by the table row.
    unsafe {
        asm!("mov {fault:e}, 1", "2: lock cmpxchg [{to}], {new}", "sete {is_equal}", "mov {fault:e}, 0", "3:",
            guarded!(), fault = out(reg) fault, to = in(reg) to, new = in(reg) new, is_equal = out(reg_byte) is_equal,
            inout("rax") current => _, options(nostack));
    }
    if fault == 0 { Ok(is_equal != 0) } else { Err(Unmapped) }
}

/// Stores the lower `width` bytes of `value` at `to`, at once, as a device wants it: 1, 2, 4 or 8.
///
/// # Errors
///
/// [`Unmapped`] where they cannot be written.
///
/// # Safety
///
/// What is mapped there, if anything, may be written at any time: no Rust object lies in it, and a device there stands
/// for what the store does.
pub unsafe fn try_store(to: *mut u8, width: u8, value: u64) -> Result<(), Unmapped> {
    let fault: u32;
    macro_rules! store {
        ($instruction:literal, $class:ident, $value:expr) => {
            asm!("mov {fault:e}, 1", $instruction, "mov {fault:e}, 0", "3:", guarded!(), fault = out(reg) fault,
                to = in(reg) to, value = in($class) $value, options(nostack, preserves_flags))
        };
    }
    match width {
        // SAFETY: by the contract; a fault is caught by the table row.
        1 => unsafe { store!("2: mov [{to}], {value}", reg_byte, value.to_le_bytes()[0]) },
        // SAFETY: as above.
        2 => unsafe { store!("2: mov [{to}], {value:x}", reg, value) },
        // SAFETY: as above.
        4 => unsafe { store!("2: mov [{to}], {value:e}", reg, value) },
        // SAFETY: as above.
        _ => unsafe { store!("2: mov [{to}], {value}", reg, value) },
    }
    if fault == 0 { Ok(()) } else { Err(Unmapped) }
}

/// # Safety
///
/// As for [`try_read`] and [`try_write`].
unsafe fn try_copy(from: *const u8, to: *mut u8, count: usize) -> Result<(), Unmapped> {
    let (words, rest) = (count / WORD, count % WORD);
    let (mut words_left, mut rest_left) = (words, rest);
    // SAFETY: by the contract; a fault leaves the count of what is left, and is caught by the table row.
    unsafe {
        asm!("2: rep movsq", "3:", guarded!(), inout("rcx") words_left,
            inout("rsi") from => _, inout("rdi") to => _, options(nostack, preserves_flags));
    }
    if words_left != 0 {
        return Err(Unmapped);
    }
    let (from, to) = (from.wrapping_add(words * WORD), to.wrapping_add(words * WORD));
    // SAFETY: as above.
    unsafe {
        asm!("2: rep movsb", "3:", guarded!(), inout("rcx") rest_left,
            inout("rsi") from => _, inout("rdi") to => _, options(nostack, preserves_flags));
    }
    if rest_left == 0 { Ok(()) } else { Err(Unmapped) }
}
