//! The end of stale translations: every CPU drops its own on its way, and nobody stands still.
//!
//! The initiator marks each CPU whose guest may run and has it leave its guest by an NMI. That CPU drops its
//! translations before it enters again and goes on at once; the initiator waits until all marks are gone. A CPU
//! that waits here serves the others' marks on itself, and joins a rendezvous, so that two initiators never
//! wait for each other. No lock is held meanwhile that another CPU could want.

use super::percpu::{self, PerCpu};
use super::{cpus, ipi, quiesce, stale};
use crate::machine::SECOND_LEVEL;
use crate::memory::flush::Flush;
use core::sync::atomic::Ordering;
use hw::bare::processor::time_stamp;

/// Ticks after which a CPU is called again. One that was about to wait for a start-up IPI may have had the
/// NMI blocked.
const CALL_AGAIN_AFTER: u64 = 50_000_000;

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
    let others = || cpus::all().iter().filter(|cpu| cpu.index != own.index);
    for cpu in others().filter(|cpu| cpu.is_running()) {
        // The mark comes first: a CPU that was woken without it would go on with what it has.
        cpu.flush.store(true, Ordering::SeqCst);
        ipi::wake(cpu);
    }
    // This CPU drops its own while the others are on their way.
    own.flush.store(true, Ordering::SeqCst);
    stale::drop_translations(own);
    for cpu in others() {
        wait_for(own, cpu);
    }
}

/// Makes every CPU drop its translations, and look after what it derived, before its guest goes on; waits for none.
pub(crate) fn ask() {
    let own = percpu::current();
    for cpu in cpus::all().iter().filter(|cpu| cpu.is_running()) {
        // The mark first, as in `shoot_down`.
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
    stale::drop_translations(own);
    own.has_flushed.swap(false, Ordering::SeqCst)
}

/// A CPU that waits for a start-up IPI drops its translations when it starts.
fn wait_for(own: &PerCpu, cpu: &'static PerCpu) {
    let mut called = time_stamp();
    let mut attempt = 0;
    while cpu.flush.load(Ordering::SeqCst) && cpu.is_running() {
        quiesce::serve(own);
        if time_stamp().wrapping_sub(called) > CALL_AGAIN_AFTER {
            ipi::call_again(own, cpu, attempt);
            attempt += 1;
            called = time_stamp();
        }
        core::hint::spin_loop();
    }
}
