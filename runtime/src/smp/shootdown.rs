//! The machine's [end of stale translations](super::stale), by NMIs.

use super::peer::Peer;
use super::percpu::{self, PerCpu};
use super::{cpus, ipi, stale};
use crate::machine::SECOND_LEVEL;
use crate::memory::flush::Flush;
use core::sync::atomic::Ordering;

/// Makes every CPU drop its translations before its guest goes on, then frees what they named.
pub(crate) fn flush(flush: Flush) {
    // Before the CPUs are called: what is derived from the old protections has to be out of its tables when they drop
    // translations.
    let is_derived_stale = percpu::current().machine.vendor.forget_changes();
    if flush.is_needed() || is_derived_stale {
        shoot_down();
    }
    // Behind the last CPU alone: until then one may walk the tables that were taken out (SDM, "Operations that Invalidate
    // Cached Mappings").
    SECOND_LEVEL.lock().flushed(flush);
}

/// Returns when no guest code can use a second-level translation from before the call.
pub(crate) fn shoot_down() {
    let own = percpu::current();
    stale::shoot_down(own, &own.machine.rendezvous);
}

/// Makes every CPU drop its translations, and look after what it derived, before its guest goes on; waits for none.
pub(crate) fn ask() {
    let own = percpu::current();
    for cpu in cpus::all().iter().filter(|cpu| cpu.is_running()) {
        // The mark first, as in `stale::shoot_down`.
        cpu.flush.store(true, Ordering::SeqCst);
        if cpu.index == own.index {
            own.demand_attention();
        } else {
            ipi::wake(cpu);
        }
    }
}

/// Drops the executing CPU's translations if that is asked for. Tells whether they were dropped since the last time
/// that this was called, so that what else was derived can follow before the guest goes on.
pub(crate) fn finish(own: &PerCpu) -> bool {
    own.drop_translations();
    own.has_flushed.swap(false, Ordering::SeqCst)
}
