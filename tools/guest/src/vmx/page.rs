//! Pages of memory above the guest's image, given out once and never taken back.

#![expect(unsafe_code, reason = "touches memory by number")]
// UNSAFETY: the range is named to nobody else; [`crate::memory::FREE`] and benches use what lies below it.

use core::sync::atomic::{AtomicU64, Ordering};

const START: u64 = 0x40_0000;
/// Machines of 64 MiB keep that much beneath a hypervisor too.
const END: u64 = 0x200_0000;
const SIZE: u64 = 4096;

static NEXT: AtomicU64 = AtomicU64::new(START);

/// A page of zeros.
pub fn allocate() -> u64 {
    allocate_run(1)
}

/// Address of `count` consecutive pages of zeros.
pub fn allocate_run(count: u64) -> u64 {
    let page = NEXT.fetch_add(count * SIZE, Ordering::SeqCst);
    assert!(page + count * SIZE <= END, "out of pages");
    for index in 0..count {
        clear(page + index * SIZE);
    }
    page
}

/// Fills the page with zeros.
pub fn clear(page: u64) {
    for offset in (0..SIZE).step_by(8) {
        write(page + offset, 0);
    }
}

/// Reads memory at an aligned physical address.
pub fn read(address: u64) -> u64 {
    // SAFETY: memory is mapped at its own address; Rust's own objects are not named by number.
    unsafe { (address as *const u64).read_volatile() }
}

/// Writes memory at an aligned physical address.
pub fn write(address: u64, value: u64) {
    // SAFETY: as above.
    unsafe { (address as *mut u64).write_volatile(value) };
}
