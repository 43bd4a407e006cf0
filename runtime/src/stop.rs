//! Whether the hypervisor stops, and the CPUs that stand still for it.

use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use hw::bare::processor::halt;

static IS_STOPPING: AtomicBool = AtomicBool::new(false);
/// CPUs that stand still because of it.
static STANDING: AtomicUsize = AtomicUsize::new(0);

/// Begins to stop; returns whether nobody had.
pub(crate) fn begin() -> bool {
    !IS_STOPPING.swap(true, Ordering::SeqCst)
}

/// Returns whether some CPU has stopped the hypervisor.
pub(crate) fn is_stopping() -> bool {
    IS_STOPPING.load(Ordering::SeqCst)
}

/// Halts this CPU, as another has stopped the hypervisor.
pub(crate) fn stand_still() -> ! {
    STANDING.fetch_add(1, Ordering::SeqCst);
    halt()
}

/// Returns how many CPUs stand still.
pub(crate) fn standing() -> usize {
    STANDING.load(Ordering::SeqCst)
}
