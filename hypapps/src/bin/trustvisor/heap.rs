//! The heap: memory of the hypervisor's that the image asks for at boot. What is given back is zeroed, whoever had it:
//! arithmetic with secrets leaves copies.
//!
//! UNSAFETY: hands the allocator its memory, and fills what comes back.
#![expect(unsafe_code, reason = "the allocator's memory")]

use core::alloc::{GlobalAlloc, Layout};
use core::hint::black_box;
use runtime::hypapp::ConfigurationError;
use runtime::services::private;
use spin::Mutex;
use talc::{ErrOnOom, Span, Talc, Talck};

/// Bytes of the heap; `build.rs` has the image provide as much.
const BYTES: usize = 8 << 20;
/// What PALs may take of it; the rest is for the commands that they give.
pub(crate) const BUDGET: usize = 7 << 20;

#[global_allocator]
static ALLOCATOR: Zeroing = Zeroing(Talc::new(ErrOnOom).lock());

/// An allocator that zeroes what is given back. A block that is to grow moves, so that its old place is zeroed too.
struct Zeroing(Talck<Mutex<()>, ErrOnOom>);

// SAFETY: every call goes to an allocator that keeps the contract; a block is filled while it is still the caller's.
unsafe impl GlobalAlloc for Zeroing {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller's.
        unsafe { self.0.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the block is the caller's, of this size, and given up.
        unsafe { block.write_bytes(0, layout.size()) };
        // Somebody may read it, as far as the compiler knows.
        let block = black_box(block);
        // SAFETY: as the caller's.
        unsafe { self.0.dealloc(block, layout) };
    }
}

/// Gives the allocator its memory, once.
pub(crate) fn start() -> Result<(), ConfigurationError> {
    let memory = private::take(BYTES);
    let _open = private::open();
    // SAFETY: the memory is the hypapp's for good, and nobody else's.
    let claimed = unsafe { ALLOCATOR.0.lock().claim(Span::from(memory)) };
    claimed.map(|_| ()).map_err(|()| ConfigurationError("the heap is too small"))
}
