//! The rendezvous: one CPU runs while no other is in its guest.
//!
//! The initiator marks every CPU whose guest may run as awaited, has it look around
//! ([`PerCpu::demand_attention`]) and sends it an NMI. A CPU in its guest exits; a CPU in the hypervisor
//! finds the mark before it next enters. A CPU that waits for a start-up IPI runs no guest code and is
//! blocked for NMIs: it is not awaited, and when it is started it meets the rendezvous before its guest's
//! first instruction. No CPU ever has two of our NMIs in flight, so each is told apart from the guest's.

use super::percpu::{self, PerCpu};
use super::{cpus, ipi, stale};
use crate::stop;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use hw::bare::processor::{halt, time_stamp};

/// Proof that no other CPU runs guest code.
#[derive(Debug)]
pub struct Quiesced(());

static IS_HELD: AtomicBool = AtomicBool::new(false);
static IS_STOPPED: AtomicBool = AtomicBool::new(false);
static PRESENT: AtomicUsize = AtomicUsize::new(0);

/// Ticks after which an NMI that had no effect is sent again. A CPU that was about to wait for a start-up
/// IPI may have had it blocked.
const RESEND_AFTER: u64 = 50_000_000;

/// Runs `act` while no other CPU is in its guest.
pub(crate) fn quiesce<T>(act: impl FnOnce(&Quiesced) -> T) -> T {
    let own = percpu::current();
    while IS_HELD.compare_exchange_weak(false, true, Ordering::Acquire, Ordering::Relaxed).is_err() {
        // Somebody else wants this CPU to stand still, or to drop its translations: refusing would be a deadlock.
        serve(own);
        core::hint::spin_loop();
    }
    // Before anybody is called: a CPU that comes has to find that it is to stand still, or it goes back into its guest and
    // is waited for until it is called again.
    IS_STOPPED.store(true, Ordering::SeqCst);
    let others = || cpus::all().iter().filter(|cpu| cpu.index != own.index);
    for cpu in others() {
        if cpu.is_running() {
            cpu.is_awaited.store(true, Ordering::SeqCst);
            ipi::call(cpu);
        }
    }
    for cpu in others() {
        await_arrival(own, cpu);
    }
    let result = act(&Quiesced(()));
    IS_STOPPED.store(false, Ordering::SeqCst);
    // Those that stood still go on first: one rendezvous behind the other could hold them for good.
    while PRESENT.load(Ordering::Acquire) != 0 {
        core::hint::spin_loop();
    }
    IS_HELD.store(false, Ordering::Release);
    result
}

/// Does what other CPUs wait for on this one. Whoever waits for another CPU calls it meanwhile: that one may itself wait
/// for this.
pub(crate) fn serve(own: &PerCpu) {
    stale::drop_translations(own);
    join(own);
    if stop::is_stopping() {
        halt();
    }
}

/// Stands still while another CPU holds the rendezvous.
pub(crate) fn join(own: &PerCpu) {
    if !IS_STOPPED.load(Ordering::SeqCst) {
        return;
    }
    // Counted before the mark goes: the initiator may end as soon as it sees no mark, and waits for those that it counts.
    PRESENT.fetch_add(1, Ordering::SeqCst);
    while IS_STOPPED.load(Ordering::SeqCst) {
        // Said again and again: one rendezvous may end and the next begin while this CPU stands here.
        own.is_awaited.store(false, Ordering::SeqCst);
        stale::drop_translations(own);
        if stop::is_stopping() {
            halt();
        }
        core::hint::spin_loop();
    }
    PRESENT.fetch_sub(1, Ordering::Release);
}

fn await_arrival(own: &PerCpu, cpu: &'static PerCpu) {
    let mut sent = time_stamp();
    let mut attempt = 0;
    while cpu.is_awaited.load(Ordering::SeqCst) {
        if stop::is_stopping() {
            halt();
        }
        if !cpu.is_running() {
            // It went to wait for a start-up IPI meanwhile, and will meet us when it gets one.
            cpu.is_awaited.store(false, Ordering::SeqCst);
            return;
        }
        if time_stamp().wrapping_sub(sent) > RESEND_AFTER {
            ipi::call_again(own, cpu, attempt);
            attempt += 1;
            sent = time_stamp();
        }
        core::hint::spin_loop();
    }
}
