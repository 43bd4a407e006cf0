//! The heap: memory of the hypervisor's that the image asks for at boot.
//!
//! UNSAFETY: hands the allocator its memory.
#![expect(unsafe_code, reason = "the allocator's memory")]

use runtime::hypapp::ConfigurationError;
use runtime::services;
use spin::Mutex;
use talc::{ErrOnOom, Span, Talc, Talck};

/// Bytes of the heap; `build.rs` has the image provide as much.
const BYTES: usize = 8 << 20;
/// What PALs may take of it; the rest is for the commands that they give.
pub(crate) const BUDGET: usize = 7 << 20;

#[global_allocator]
static ALLOCATOR: Talck<Mutex<()>, ErrOnOom> = Talc::new(ErrOnOom).lock();

/// Gives the allocator its memory, once.
pub(crate) fn start() -> Result<(), ConfigurationError> {
    let memory = services::take_memory(BYTES);
    // SAFETY: the memory is the hypapp's for good, and nobody else's.
    let claimed = unsafe { ALLOCATOR.lock().claim(Span::from(memory)) };
    claimed.map(|_| ()).map_err(|()| ConfigurationError("the heap is too small"))
}
