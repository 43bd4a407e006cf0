//! Windows: kernel32.
#![expect(unsafe_code, reason = "functions of the system")]
// UNSAFETY: the calls own the pages that they name.

use super::{Refusal, Rights};
use core::ffi::c_void;

const MEM_COMMIT_RESERVE: u32 = 0x3000;
const MEM_RELEASE: u32 = 0x8000;
const PAGE_READWRITE: u32 = 0x04;
const PAGE_EXECUTE_READ: u32 = 0x20;
const PAGE_EXECUTE_READWRITE: u32 = 0x40;
/// ERROR_INVALID_ADDRESS.
pub(crate) const TAKEN: i32 = 487;

#[link(name = "kernel32")]
unsafe extern "system" {
    fn VirtualAlloc(address: *mut c_void, bytes: usize, kind: u32, protection: u32) -> *mut c_void;
    fn VirtualFree(address: *mut c_void, bytes: usize, kind: u32) -> i32;
    fn VirtualLock(address: *mut c_void, bytes: usize) -> i32;
    fn VirtualProtect(address: *mut c_void, bytes: usize, protection: u32, old: *mut u32) -> i32;
    safe fn GetLastError() -> u32;
}

fn refusal(request: &'static str) -> Refusal {
    Refusal { request, number: i32::try_from(GetLastError()).unwrap_or(i32::MAX) }
}

/// Gives new zeroed pages, at `start` where that is not 0.
pub(crate) fn allocate(start: usize, bytes: usize) -> Result<usize, Refusal> {
    let wish = start as *mut c_void;
    // SAFETY: the system never replaces pages that there are.
    let pages = unsafe { VirtualAlloc(wish, bytes, MEM_COMMIT_RESERVE, PAGE_READWRITE) };
    if pages.is_null() { Err(refusal("VirtualAlloc")) } else { Ok(pages as usize) }
}

/// Keeps pages in memory.
pub(crate) fn lock(start: usize, bytes: usize) -> Result<(), Refusal> {
    // SAFETY: changes no content.
    let locked = unsafe { VirtualLock(start as *mut c_void, bytes) };
    if locked == 0 { Err(refusal("VirtualLock")) } else { Ok(()) }
}

/// Changes what the process may do with pages of its own.
pub(crate) fn protect(start: usize, bytes: usize, rights: Rights) -> Result<(), Refusal> {
    let rights = match rights {
        Rights::Write => PAGE_READWRITE,
        Rights::Execute => PAGE_EXECUTE_READ,
        Rights::All => PAGE_EXECUTE_READWRITE,
    };
    let mut old = 0;
    // SAFETY: the pages are the caller's own.
    let changed = unsafe { VirtualProtect(start as *mut c_void, bytes, rights, &mut old) };
    if changed == 0 { Err(refusal("VirtualProtect")) } else { Ok(()) }
}

/// Gives pages back.
pub(crate) fn release(start: usize, _bytes: usize) {
    // SAFETY: the pages came from `allocate`, and nobody uses them any more.
    unsafe { VirtualFree(start as *mut c_void, 0, MEM_RELEASE) };
}
