//! Physical memory: below 4 GiB as `entry.S` maps it, one to one; above through a window, to be zeroed.

use core::arch::asm;
use core::ptr;
use core::sync::atomic::{AtomicU64, Ordering};

use bootloader::launch::Place;
use platform::handoff::{HANDOFF_OFFSET, Handoff, PhysRange};
use platform::physical::{ReadPhysical, Unreadable};
use x86::address::GIB;

/// End of what is mapped.
const MAPPED_END: u64 = 4 * GIB;
/// The real-mode interrupt vectors lie below; nothing is read there, and no pointer is null.
const MAPPED_START: u64 = 0x400;

/// The window: the GiB behind what is mapped.
const WINDOW: u64 = MAPPED_END;
const WINDOW_SIZE: u64 = GIB;
const LARGE_PAGE: u64 = 2 << 20;
/// Entries (SDM, "4-Level Paging and 5-Level Paging"): present and writable, and that of a 2 MiB page.
const TABLE: u64 = 3;
const LARGE: u64 = TABLE | 1 << 7;
const ENTRIES: usize = 512;

#[repr(C, align(4096))]
struct PageTable([AtomicU64; ENTRIES]);

/// Maps the window.
static WINDOW_TABLE: PageTable = PageTable([const { AtomicU64::new(0) }; ENTRIES]);

unsafe extern "C" {
    static __image_start: u8;
    static __image_end: u8;
    /// PML4, then the page-directory-pointer table.
    static page_tables: [PageTable; 2];
}

/// All memory that is mapped.
pub(super) struct PhysicalMemory;

/// Returns the memory that this code runs in, its stack and tables included.
pub(super) fn own_range() -> PhysRange {
    let base = (&raw const __image_start).addr() as u64;
    PhysRange { base, length: (&raw const __image_end).addr() as u64 - base }
}

/// Zeroes memory that nobody needs, wherever it is.
pub(super) fn zero(range: PhysRange) {
    let end = range.base + range.length;
    let low = PhysRange { base: range.base, length: end.min(MAPPED_END).saturating_sub(range.base) };
    if low.length != 0 {
        PhysicalMemory.zero(low);
    }
    let mut at = range.base.max(MAPPED_END);
    while at < end {
        let offset = at % WINDOW_SIZE;
        let count = (WINDOW_SIZE - offset).min(end - at);
        show(at - offset);
        // SAFETY: the window shows it, and the caller says that nobody needs it.
        unsafe { ptr::write_bytes(pointer(WINDOW + offset), 0, bytes(count)) }
        at += count;
    }
}

/// Moves the window to the GiB at `base`.
fn show(base: u64) {
    for (page, entry) in (base..).step_by(bytes(LARGE_PAGE)).zip(&WINDOW_TABLE.0) {
        entry.store(page | LARGE, Ordering::Relaxed);
    }
    // SAFETY: the tables of `entry.S`; the processor reads them alone.
    let pointers = unsafe { &page_tables[1] };
    let table = (&raw const WINDOW_TABLE).addr() as u64;
    pointers.0[bytes(WINDOW / WINDOW_SIZE)].store(table | TABLE, Ordering::Relaxed);
    // SAFETY: the same tables again, which drops what the processor remembers of them.
    unsafe { asm!("mov {0}, cr3", "mov cr3, {0}", out(reg) _, options(nostack)) }
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

    fn read_register(&self, address: u64) -> Result<u32, Unreadable> {
        if !(MAPPED_START..MAPPED_END).contains(&address) || !address.is_multiple_of(4) {
            return Err(Unreadable);
        }
        // SAFETY: the address is mapped and aligned, and what a register has can be read as a number.
        Ok(unsafe { pointer(address).cast::<u32>().read_volatile() })
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

/// Returns a 64-bit number as this 64-bit target's `usize`.
#[expect(clippy::cast_possible_truncation, reason = "both have 64 bits here")]
const fn bytes(count: u64) -> usize {
    count as usize
}
