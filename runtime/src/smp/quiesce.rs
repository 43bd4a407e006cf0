//! The machine's [rendezvous](super::rendezvous), by NMIs. No CPU ever has two of ours in flight, so each is told apart
//! from the guest's.

use super::peer::Peer;
use super::percpu::{self, PerCpu};
use super::{cpus, ipi};
use crate::stop;
use core::sync::atomic::{AtomicBool, Ordering};
use hw::bare::processor::{halt, time_stamp};

/// Proof that no other CPU runs guest code.
#[derive(Debug)]
pub struct Quiesced(());

/// Ticks after which an NMI that had no effect is sent again. A CPU that was about to wait for a start-up
/// IPI may have had it blocked.
const CALL_AGAIN_AFTER: u64 = 50_000_000;

/// Runs `act` while no other CPU is in its guest.
pub(crate) fn quiesce<T>(act: impl FnOnce(&Quiesced) -> T) -> T {
    let own = percpu::current();
    own.machine.rendezvous.hold(own, || act(&Quiesced(())))
}

/// Does what other CPUs wait for on this one.
pub(crate) fn serve(own: &PerCpu) {
    own.machine.rendezvous.serve(own);
}

/// Stands still while another CPU holds the rendezvous.
pub(crate) fn join(own: &PerCpu) {
    own.machine.rendezvous.join(own);
}

/// When a CPU that is waited for was called last, and how often again.
#[derive(Debug)]
pub(crate) struct Patience {
    called: u64,
    attempt: u32,
}

impl Default for Patience {
    fn default() -> Self {
        Self { called: time_stamp(), attempt: 0 }
    }
}

impl Peer for PerCpu {
    type Flag = AtomicBool;
    type Patience = Patience;

    fn others(&self) -> impl Iterator<Item = &Self> {
        cpus::all().iter().copied().filter(|cpu| cpu.index != self.index)
    }

    fn is_running(&self) -> bool {
        self.is_running()
    }

    fn awaited(&self) -> &AtomicBool {
        &self.is_awaited
    }

    fn stale(&self) -> &AtomicBool {
        &self.flush
    }

    fn wake(&self) {
        ipi::wake(self);
    }

    fn wait_for(&self, other: &Self, patience: &mut Patience) {
        if time_stamp().wrapping_sub(patience.called) > CALL_AGAIN_AFTER {
            ipi::call_again(self, other, patience.attempt);
            *patience = Patience { called: time_stamp(), attempt: patience.attempt + 1 };
        }
        core::hint::spin_loop();
    }

    fn relax() {
        core::hint::spin_loop();
    }

    fn invalidate(&self) {
        // A hypapp that starts changes protections before a CPU is set up to run a guest.
        if self.is_ready.load(Ordering::Relaxed) {
            self.machine.vendor.invalidate_second_level();
        }
        self.has_flushed.store(true, Ordering::SeqCst);
        self.demand_attention();
    }

    fn heed_stop(&self) {
        if stop::is_stopping() {
            halt();
        }
    }
}
