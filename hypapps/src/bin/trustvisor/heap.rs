//! The heap: memory of the hypervisor that the image asks for at boot. What is given back is zeroed, whoever had it:
//! arithmetic with secrets leaves copies.
//!
//! A part of it is the microTPM's alone: its arithmetic cannot be told that memory is out, and whatever processes make
//! of the rest, that part stays as large as its commands need.
//!
//! UNSAFETY: hands the allocators their memory, and fills what comes back.
#![expect(unsafe_code, reason = "the allocators' memory")]

use core::alloc::{GlobalAlloc, Layout};
use core::hint::black_box;
use core::sync::atomic::{AtomicUsize, Ordering};
use pals::quota::Amounts;
use runtime::hypapp::ConfigurationError;
use runtime::services::{self, private};
use spin::Mutex;
use talc::TalcLock;
use talc::source::Manual;

/// Bytes of the heap; `build.rs` has the image provide as much, and frames for tables.
const BYTES: usize = 8 << 20;
/// Bytes that are the microTPM's: of a command's 64 KiB, its arguments and results, and the identity key.
const MICROTPM_BYTES: usize = 512 << 10;
/// Returns what all PALs together may take. Regions are as many as the hypervisor has frames to map them by small
/// pages.
pub(crate) fn limit() -> Amounts {
    let (runs, regions) = (services::pages::COVERED_RUNS_LIMIT, services::pages::covered_regions_limit());
    Amounts { pals: 1536, pages: 40 << 10, runs, regions, bytes: 3 << 19 }
}

#[global_allocator]
static ALLOCATOR: Zeroing = Zeroing { all: TalcLock::new(Manual), microtpm: TalcLock::new(Manual) };
/// The CPU that carries out a command of the microTPM.
static MICROTPM_CPU: AtomicUsize = AtomicUsize::new(NOBODY);
/// First and last address of the microTPM's part.
static MICROTPM_START: AtomicUsize = AtomicUsize::new(usize::MAX);
static MICROTPM_END: AtomicUsize = AtomicUsize::new(0);
const NOBODY: usize = usize::MAX;

/// An allocator that zeroes what is given back. A block that is to grow moves, so that its old place is zeroed too.
struct Zeroing {
    all: TalcLock<Mutex<()>, Manual>,
    microtpm: TalcLock<Mutex<()>, Manual>,
}

// SAFETY: every call goes to an allocator that keeps the contract, and back to the one that a block is of; a block is
// filled while it is still the caller's.
unsafe impl GlobalAlloc for Zeroing {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let is_microtpm = MICROTPM_CPU.load(Ordering::Relaxed) == services::cpu();
        let part = if is_microtpm { &self.microtpm } else { &self.all };
        // SAFETY: as the caller's.
        unsafe { part.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the block is the caller's, of this size, and given up.
        unsafe { block.write_bytes(0, layout.size()) };
        // Somebody may read it, as far as the compiler knows.
        let block = black_box(block);
        let microtpm = MICROTPM_START.load(Ordering::Relaxed)..MICROTPM_END.load(Ordering::Relaxed);
        let part = if microtpm.contains(&block.addr()) { &self.microtpm } else { &self.all };
        // SAFETY: as the caller's.
        unsafe { part.dealloc(block, layout) };
    }
}

/// Gives the allocators their memory, once.
pub(crate) fn start() -> Result<(), ConfigurationError> {
    let memory = private::take(BYTES);
    let _open = private::open();
    let (microtpm, all) = memory.split_at_mut(MICROTPM_BYTES);
    MICROTPM_START.store(microtpm.as_ptr().addr(), Ordering::Relaxed);
    MICROTPM_END.store(all.as_ptr().addr(), Ordering::Relaxed);
    for (part, memory) in [(&ALLOCATOR.microtpm, microtpm), (&ALLOCATOR.all, all)] {
        // SAFETY: the memory is the hypapp's for good, and nobody else's.
        let claimed = unsafe { part.lock().claim(memory.as_mut_ptr(), memory.len()) };
        claimed.ok_or(ConfigurationError::Memory { wanted: "a heap" })?;
    }
    Ok(())
}

/// Calls `act`, of the microTPM, with its memory from the part that is that one's alone. One CPU is at that at a time.
pub(crate) fn of_microtpm<T>(act: impl FnOnce() -> T) -> T {
    MICROTPM_CPU.store(services::cpu(), Ordering::Relaxed);
    let result = act();
    MICROTPM_CPU.store(NOBODY, Ordering::Relaxed);
    result
}
