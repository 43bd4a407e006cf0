//! Physical memory: below 4 GiB as `entry.S` maps it, one to one; above through a window, to be zeroed.

use core::arch::asm;
use core::convert::Infallible;
use core::ptr;
use core::sync::atomic::{AtomicU64, Ordering};

use bootloader::stop::Stop;
use platform::handoff::{HANDOFF_OFFSET, Handoff, PhysRange};
use platform::launch::{Entry, Ground};
use platform::physical::{ReadPhysical, Unreadable, WritePhysical};
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
    /// Leaves 64-bit mode for 32-bit protected mode without paging and jumps.
    ///
    /// # Safety
    ///
    /// `entry` is the physical address of code that expects that mode, with EBX = `entry`.
    fn enter_protected_mode(entry: u32) -> !;
}

/// All memory that is mapped, to be read.
pub(super) struct PhysicalMemory;

/// Returns the memory that this code runs in, its stack and tables included.
pub(super) fn own_range() -> PhysRange {
    let base = (&raw const __image_start).addr() as u64;
    PhysRange { base, length: (&raw const __image_end).addr() as u64 - base }
}

/// Zeroes memory, wherever it is.
///
/// # Safety
///
/// It is memory that nobody needs.
pub(super) unsafe fn zero(range: PhysRange) {
    let end = range.base + range.length;
    let low = end.min(MAPPED_END).saturating_sub(range.base);
    // SAFETY: mapped one to one, and the caller says that nobody needs it.
    unsafe { ptr::write_bytes(pointer(range.base), 0, bytes(low)) }
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

impl WritePhysical for PhysicalMemory {
    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), Unreadable> {
        let end = address.checked_add(bytes.len() as u64).ok_or(Unreadable)?;
        let own = own_range();
        let is_own = address < own.base + own.length && own.base < end;
        if address < MAPPED_START || end > MAPPED_END || is_own {
            return Err(Unreadable);
        }
        // SAFETY: the range is mapped, and apart from all that this code has; `bytes` is readable.
        unsafe { ptr::copy(bytes.as_ptr(), pointer(address), bytes.len()) }
        Ok(())
    }
}

/// The hypervisor region, to be filled.
pub(super) struct Region(PhysRange);

impl Region {
    /// Takes `range` for the region.
    ///
    /// # Safety
    ///
    /// It is mapped, aligned to a page, and memory that nothing refers to.
    pub(super) const unsafe fn new(range: PhysRange) -> Self {
        Self(range)
    }

    /// Writes the handoff to its place.
    pub(super) fn write_handoff(&mut self, handoff: &Handoff) {
        let place = self.place(HANDOFF_OFFSET + self.0.base, size_of::<Handoff>() as u64);
        // SAFETY: the place is page-aligned, and inside the region, to which nothing refers.
        unsafe { ptr::copy_nonoverlapping(handoff, place.cast(), 1) }
    }

    /// Returns where `length` bytes at `base` are, which have to be the region's.
    fn place(&self, base: u64, length: u64) -> *mut u8 {
        let offset = base.checked_sub(self.0.base);
        let end = offset.and_then(|offset| offset.checked_add(length));
        assert!(end.is_some_and(|end| end <= self.0.length), "{base:#x} is not in the region");
        pointer(base)
    }
}

impl Ground for Region {
    type Left = Result<Infallible, Stop>;

    fn copy(&mut self, from: u64, to: u64, length: u64) {
        let end = from.checked_add(length);
        let is_mapped = from >= MAPPED_START && end.is_some_and(|end| end <= MAPPED_END);
        assert!(is_mapped, "{from:#x} is not mapped");
        // SAFETY: the source is mapped, and whatever lies there can be read; the destination is the region's.
        unsafe { ptr::copy(pointer(from), self.place(to, length), bytes(length)) }
    }

    fn zero(&mut self, range: PhysRange) {
        // SAFETY: it is the region's.
        unsafe { ptr::write_bytes(self.place(range.base, range.length), 0, bytes(range.length)) }
    }

    fn jump(&mut self, entry: Entry) -> Self::Left {
        // SAFETY: a launch placed the secure loader, and the entry offset is its own header's.
        unsafe { enter_protected_mode(entry.address()) }
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
