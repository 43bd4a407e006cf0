//! Physical memory below 4 GiB, which `entry.S` maps one to one.

use core::ptr;

use bootloader::launch::Place;
use platform::handoff::{HANDOFF_OFFSET, Handoff, PhysRange};
use platform::physical::{ReadPhysical, Unreadable};

/// End of what is mapped.
const MAPPED_END: u64 = 1 << 32;
/// The real-mode interrupt vectors lie below; nothing is read there, and no pointer is null.
const MAPPED_START: u64 = 0x400;

unsafe extern "C" {
    static __image_start: u8;
    static __image_end: u8;
}

/// All memory that is mapped.
pub(super) struct PhysicalMemory;

/// The memory that this code runs in, its stack and tables included.
pub(super) fn own_range() -> PhysRange {
    let base = (&raw const __image_start).addr() as u64;
    PhysRange { base, length: (&raw const __image_end).addr() as u64 - base }
}

/// Writes the handoff to its place in the region.
pub(super) fn write_handoff(handoff: &Handoff, region: PhysRange) {
    let place = pointer(region.base + HANDOFF_OFFSET).cast::<Handoff>();
    // SAFETY: the place is page-aligned, inside the region that was chosen in unused memory, and nothing
    // refers to it.
    unsafe { ptr::copy_nonoverlapping(handoff, place, 1) }
}

impl ReadPhysical for PhysicalMemory {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), Unreadable> {
        let end = address.checked_add(bytes.len() as u64).ok_or(Unreadable)?;
        if address < MAPPED_START || end > MAPPED_END {
            return Err(Unreadable);
        }
        // SAFETY: the range is mapped; `bytes` is the caller's own, and whatever lies there can be read.
        unsafe { ptr::copy(pointer(address), bytes.as_mut_ptr(), bytes.len()) }
        Ok(())
    }
}

impl Place for PhysicalMemory {
    fn copy(&mut self, from: u64, to: u64, length: u64) {
        // SAFETY: the plan keeps the source inside a module and the destination inside the region, both
        // mapped and apart from this code.
        unsafe { ptr::copy(pointer(from), pointer(to), bytes(length)) }
    }

    fn zero(&mut self, range: PhysRange) {
        // SAFETY: as in `copy`.
        unsafe { ptr::write_bytes(pointer(range.base), 0, bytes(range.length)) }
    }
}

fn pointer(address: u64) -> *mut u8 {
    ptr::with_exposed_provenance_mut(bytes(address))
}

/// A 64-bit number as this 64-bit target's `usize`.
#[expect(clippy::cast_possible_truncation, reason = "both have 64 bits here")]
const fn bytes(count: u64) -> usize {
    count as usize
}
