//! The hypapp `verify`, which protects a page of a process of ours against writing.
#![expect(unsafe_code, reason = "memory shared with a child")]
// UNSAFETY: one page, mapped for ever, that this process and its children read and write as single bytes.

use super::vmcall::{Registers, vmcall};
use super::{Failure, child};
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};
use nix::sys::signal::Signal;
use std::fs::File;
use std::num::NonZero;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU8, Ordering};

const SET: u64 = 0xdead_beef;
const GET: u64 = 0xdead_bef0;
const WRITABLE: u64 = 2 | 8 | 16;
const READ_ONLY: u64 = 2 | 4 | 32;
const PAGE_SIZE: usize = 4096;

/// Takes the right to write away and gives it back; children try.
pub(super) fn perform() -> Result<(), Failure> {
    let page = shared_page()?;
    page.store(1, Ordering::SeqCst);
    let frame = frame(page)?;
    for value in 2..5 {
        set(frame, READ_ONLY)?;
        expect_rights(frame, 1)?;
        let writer = child::start(|| write(page, value))?;
        child::wait_for_signal(writer, Signal::SIGSEGV)?;
        if page.load(Ordering::SeqCst) != value - 1 {
            return Err("a protected page was written".into());
        }
        set(frame, WRITABLE)?;
        expect_rights(frame, 7)?;
        child::wait(child::start(|| write(page, value))?)?;
        if page.load(Ordering::SeqCst) != value {
            return Err("a page was not written".into());
        }
    }
    // Types that contradict each other.
    match call(SET, frame, 2 | 4 | 8).rax {
        1 => Ok(()),
        status => Err(format!("contradicting types: status {status}")),
    }
}

fn write(page: &AtomicU8, value: u8) -> i32 {
    page.store(value, Ordering::SeqCst);
    0
}

fn set(frame: u64, types: u64) -> Result<(), Failure> {
    match call(SET, frame, types).rax {
        0 => Ok(()),
        status => Err(format!("page {frame:#x} to types {types}: status {status}")),
    }
}

fn expect_rights(frame: u64, expected: u64) -> Result<(), Failure> {
    let rights = call(GET, frame, 0).rdx;
    if rights == expected { Ok(()) } else { Err(format!("rights {rights}, not {expected}")) }
}

fn call(command: u64, frame: u64, types: u64) -> Registers {
    vmcall(Registers { rax: command, rcx: frame, rdx: types, ..Registers::default() })
}

fn shared_page() -> Result<&'static AtomicU8, Failure> {
    let rights = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    let length = NonZero::new(PAGE_SIZE).ok_or("a page has bytes")?;
    // SAFETY: new memory at an address of the kernel's choice.
    let page = unsafe { mmap_anonymous(None, length, rights, MapFlags::MAP_SHARED) };
    let page = page.map_err(|why| format!("mmap: {why}"))?;
    // SAFETY: the page is mapped readable and writable, zeroed, and never unmapped.
    Ok(unsafe { AtomicU8::from_ptr(page.as_ptr().cast()) })
}

/// Number of the physical page (Linux, "pagemap").
fn frame(page: &AtomicU8) -> Result<u64, Failure> {
    const PRESENT: u64 = 1 << 63;
    const FRAME: u64 = (1 << 55) - 1;
    let describe = |why| format!("/proc/self/pagemap: {why}");
    let mut entry = [0; 8];
    let offset = page.as_ptr().addr() / PAGE_SIZE * entry.len();
    let file = File::open("/proc/self/pagemap").map_err(describe)?;
    file.read_exact_at(&mut entry, offset as u64).map_err(describe)?;
    let entry = u64::from_le_bytes(entry);
    if entry & PRESENT == 0 || entry & FRAME == 0 {
        return Err(format!("/proc/self/pagemap has {entry:#x}"));
    }
    Ok(entry & FRAME)
}
