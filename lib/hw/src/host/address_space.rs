//! The address space in force, as far as code under test maps physical memory into it.
//!
//! Physical memory is a file that has no name. A page of it appears where the tables at the root say so once the
//! translation of that place has been dropped, which every change of a table ends with. Addresses of the hypervisor's
//! lie in the lower half, the only one that programs of a host have; the rest of their address space is left alone.

use crate::Unmapped;
use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use x86::address::{GIB, HostPhysAddr};
use x86::paging::{ADDRESS_MASK, PAGE_BYTES, PAGE_SIZE, PageFlags};

/// The bits of an address that tell one place of the hypervisor's from another.
pub const ADDRESS_BITS: u64 = (1 << 46) - 1;

/// Bytes of physical memory.
pub const PHYSICAL_BYTES: u64 = 4 * GIB;

/// The hypervisor's part of the address space begins here.
const START: u64 = ADDRESS_BITS - (1 << 39) + 1;

static MEMORY: OnceLock<File> = OnceLock::new();
static ROOT: AtomicU64 = AtomicU64::new(0);
/// Pages that were mapped and are no more.
static MISSING: Mutex<BTreeSet<u64>> = Mutex::new(BTreeSet::new());

/// Physical memory, all zero at first.
///
/// # Panics
///
/// Where the system has none to give.
pub fn memory() -> &'static File {
    MEMORY.get_or_init(|| {
        // SAFETY: the name is a string with its end.
        let descriptor = unsafe { libc::memfd_create(c"xmhf".as_ptr(), libc::MFD_CLOEXEC) };
        assert!(descriptor >= 0, "the system has no memory for a machine");
        // SAFETY: just made, and nobody else's.
        let file = unsafe { File::from_raw_fd(descriptor) };
        assert!(file.set_len(PHYSICAL_BYTES).is_ok(), "the system has no memory for a machine");
        file
    })
}

/// Shows `bytes` of physical memory at `address`.
///
/// # Panics
///
/// Where `address` is not of the hypervisor's part of the address space.
///
/// # Safety
///
/// No Rust object lies there.
pub unsafe fn show(address: u64, physical: HostPhysAddr, bytes: usize) {
    // SAFETY: by the caller's duty.
    unsafe { map(address, bytes, Some(physical.get())) }
}

/// Returns the physical address of the tables in force.
#[must_use]
pub fn root() -> HostPhysAddr {
    HostPhysAddr::new(ROOT.load(Ordering::SeqCst))
}

/// Puts the tables at `root` in force.
///
/// # Safety
///
/// As on the real machine.
pub unsafe fn load(root: HostPhysAddr) {
    ROOT.store(root.get(), Ordering::SeqCst);
}

/// Has the page at `address` mapped as the tables in force say.
pub fn invalidate(address: u64) {
    let page = address & !(PAGE_SIZE - 1);
    if !(START..=ADDRESS_BITS).contains(&page) {
        return;
    }
    let physical = translate(page).filter(|physical| *physical < PHYSICAL_BYTES);
    let mut missing = MISSING.lock().unwrap_or_else(PoisonError::into_inner);
    if physical.is_some() {
        missing.remove(&page)
    } else {
        missing.insert(page)
    };
    // SAFETY: the tables say what is mapped there, which their owner answers for.
    unsafe { map(page, PAGE_BYTES, physical) }
}

/// Nothing: each change of a table that shows memory names its page by [`invalidate`].
pub const fn invalidate_all() {}

/// Whether nothing is mapped at `address` any more.
pub(super) fn require(address: u64) -> Result<(), Unmapped> {
    let missing = MISSING.lock().unwrap_or_else(PoisonError::into_inner);
    if missing.contains(&(address & !(PAGE_SIZE - 1))) { Err(Unmapped) } else { Ok(()) }
}

fn translate(page: u64) -> Option<u64> {
    let mut entry = ROOT.load(Ordering::SeqCst);
    for level in (0..4).rev() {
        let slot = (entry & ADDRESS_MASK) + (page >> (12 + 9 * level) & 0x1ff) * 8;
        let mut word = [0; 8];
        memory().read_exact_at(&mut word, slot).ok()?;
        entry = u64::from_le_bytes(word);
        if entry & PageFlags::P.bits() == 0 {
            return None;
        }
    }
    Some(entry & ADDRESS_MASK)
}

/// # Safety
///
/// No Rust object lies there.
unsafe fn map(address: u64, bytes: usize, physical: Option<u64>) {
    assert!((START..=ADDRESS_BITS).contains(&address), "{address:#x} is not the hypervisor's");
    let place = std::ptr::with_exposed_provenance_mut(usize::try_from(address).unwrap_or_default());
    let offset = physical.and_then(|physical| libc::off_t::try_from(physical).ok());
    let protection = if offset.is_some() { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_NONE };
    let flags = libc::MAP_SHARED | libc::MAP_FIXED | libc::MAP_NORESERVE;
    // SAFETY: by the caller's duty.
    let mapped = unsafe {
        libc::mmap(place, bytes, protection, flags, memory().as_raw_fd(), offset.unwrap_or_default())
    };
    assert!(mapped == place, "{address:#x} cannot be mapped");
}
