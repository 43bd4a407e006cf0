//! Translations that a CPU has and must not use any more.

use super::percpu::PerCpu;
use core::sync::atomic::Ordering;

/// Drops the executing CPU's translations if that is asked for.
pub(super) fn drop_translations(own: &PerCpu) {
    // Taken back first, so that a wish which comes meanwhile is met by another round. Whoever waits for the mark to
    // go may go on before the translations are dropped: this CPU is not in its guest, whose entry comes after them.
    if own.flush.swap(false, Ordering::SeqCst) {
        // A hypapp that starts changes protections before a CPU is set up to run a guest.
        if own.is_ready.load(Ordering::Relaxed) {
            own.machine.vendor.invalidate_second_level();
        }
        own.has_flushed.store(true, Ordering::SeqCst);
        own.demand_attention();
    }
}
