//! A range of physical memory that is the hypervisor's own and mapped linearly.

use crate::PhysMemory;
use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};
use x86::address::{HostPhysAddr, HostVirtAddr};

/// Least bytes of a cache line on a processor with VMX.
const CACHE_LINE: usize = 64;

/// The hypervisor region: physical memory that the guest never reaches.
#[derive(Clone, Copy, Debug)]
pub struct Region {
    base: u64,
    length: u64,
    virtual_base: u64,
}

impl Region {
    /// # Safety
    ///
    /// 1. `[base, base + length)` is mapped writable at `virtual_base` for as long as the value is used.
    /// 2. Memory reached through it is not also reached through Rust references that overlap in time.
    #[must_use]
    pub const unsafe fn new(base: HostPhysAddr, length: u64, virtual_base: HostVirtAddr) -> Self {
        Self { base: base.get(), length, virtual_base: virtual_base.get() }
    }

    /// Returns the first byte.
    #[must_use]
    pub const fn base(&self) -> HostPhysAddr {
        HostPhysAddr::new(self.base)
    }

    /// Length in bytes.
    #[must_use]
    pub const fn length(&self) -> u64 {
        self.length
    }

    /// Returns whether `[address, address + length)` touches the region.
    #[must_use]
    pub const fn overlaps(&self, address: u64, length: u64) -> bool {
        address < self.base + self.length && address.saturating_add(length) > self.base
    }

    /// Returns where `bytes` at `address` are mapped.
    ///
    /// # Panics
    ///
    /// Where they do not lie in the region: a bug of ours, since no guest names addresses here.
    #[must_use]
    pub fn virt(&self, address: HostPhysAddr, bytes: usize) -> *mut u8 {
        let offset = address.get().wrapping_sub(self.base);
        assert!(
            offset <= self.length && bytes as u64 <= self.length - offset,
            "{address:?} lies outside the hypervisor region"
        );
        (self.virtual_base + offset) as *mut u8
    }

    /// Writes the cache lines of `bytes` at `address` back, and returns when they are in memory.
    ///
    /// # Panics
    ///
    /// As [`Self::virt`].
    pub fn write_back(&self, address: HostPhysAddr, bytes: usize) {
        let start = self.virt(address, bytes);
        for line in (start.addr() & !(CACHE_LINE - 1)..start.addr() + bytes).step_by(CACHE_LINE) {
            // SAFETY: the line is mapped, by the contract of `new`: pages consist of whole lines.
            unsafe { asm!("clflush [{}]", in(reg) line, options(nostack, preserves_flags)) }
        }
        // SAFETY: a fence breaks nothing.
        unsafe { asm!("mfence", options(nostack, preserves_flags)) }
    }

    fn word(&self, address: HostPhysAddr) -> &AtomicU64 {
        let pointer = self.virt(address, 8).cast::<u64>();
        assert!(pointer.is_aligned(), "{address:?} is not aligned");
        // SAFETY: mapped and exclusively ours by the contract of `new`, aligned by the check.
        unsafe { AtomicU64::from_ptr(pointer) }
    }
}

impl PhysMemory for Region {
    fn read(&self, address: HostPhysAddr, bytes: &mut [u8]) {
        let from = self.virt(address, bytes.len());
        // SAFETY: `virt` checked the bounds; the contract of `new` gives the mapping.
        unsafe { core::ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), bytes.len()) }
    }

    fn write(&self, address: HostPhysAddr, bytes: &[u8]) {
        let to = self.virt(address, bytes.len());
        // SAFETY: as in `read`.
        unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) }
    }

    fn read_u64(&self, address: HostPhysAddr) -> u64 {
        self.word(address).load(Ordering::Relaxed)
    }

    fn write_u64(&self, address: HostPhysAddr, value: u64) {
        self.word(address).store(value, Ordering::Release);
    }
}
