//! The address space in force: its root, and what the processor keeps of its translations.

use x86::address::HostPhysAddr;
use x86_64::registers::control::{Cr3, Cr3Flags};
use x86_64::structures::paging::PhysFrame;
use x86_64::{PhysAddr, VirtAddr, instructions::tlb};

/// The bits of an address that tell one place of the hypervisor's from another.
pub const ADDRESS_BITS: u64 = !0;

/// Returns the physical address of the tables in force.
#[must_use]
pub fn root() -> HostPhysAddr {
    HostPhysAddr::new(Cr3::read().0.start_address().as_u64())
}

/// Puts the tables at `root` in force, and drops all translations: none is global.
///
/// # Safety
///
/// They map all that is in use as the tables before did.
pub unsafe fn load(root: HostPhysAddr) {
    let frame = PhysFrame::containing_address(PhysAddr::new(root.get()));
    // SAFETY: by the caller's duty.
    unsafe { Cr3::write(frame, Cr3Flags::empty()) }
}

/// Drops the translation of the page at `address`.
#[inline]
pub fn invalidate(address: u64) {
    tlb::flush(VirtAddr::new(address));
}

/// Drops all translations.
#[inline]
pub fn invalidate_all() {
    tlb::flush_all();
}
