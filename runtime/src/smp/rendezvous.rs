//! The rendezvous: one CPU runs while no other is in its guest.
//!
//! The initiator marks every CPU whose guest may run as awaited, has it look around and calls it out of its guest. A CPU
//! in its guest exits; a CPU in the hypervisor finds the mark before it next enters. A CPU that waits for a start-up IPI
//! runs no guest code and is blocked for NMIs: it is not awaited, and when it is started it meets the rendezvous before
//! its guest's first instruction.

use super::peer::{Count, Flag, Peer};

/// Whether a rendezvous is held.
#[derive(Debug)]
pub(crate) struct Rendezvous<F, C> {
    is_held: F,
    is_stopped: F,
    /// CPUs that stand still.
    present: C,
}

impl<F: Flag, C: Count> Rendezvous<F, C> {
    /// Nobody holds one: the flags are clear and the count is 0.
    pub(crate) const fn new(is_held: F, is_stopped: F, present: C) -> Self {
        Self { is_held, is_stopped, present }
    }

    /// Runs `act` on `own`, which executes this, while no other CPU is in its guest.
    pub(crate) fn hold<P: Peer, T>(&self, own: &P, act: impl FnOnce() -> T) -> T {
        while self.is_held.swap(true) {
            // Somebody else wants this CPU to stand still, or to drop its translations: refusing would be a deadlock.
            self.serve(own);
            P::relax();
        }
        // Before anybody is called: a CPU that comes has to find that it is to stand still, or it goes back into its guest
        // and is waited for until it is called again.
        self.is_stopped.set(true);
        for cpu in own.others() {
            if cpu.is_running() {
                cpu.awaited().set(true);
                cpu.wake();
            }
        }
        for cpu in own.others() {
            await_arrival(own, cpu);
        }
        let result = act();
        self.is_stopped.set(false);
        // Those that stood still go on first: one rendezvous behind the other could hold them for good.
        while self.present.get() != 0 {
            P::relax();
        }
        self.is_held.set(false);
        result
    }

    /// Does what other CPUs wait for on this one. Whoever waits for another CPU calls it meanwhile: that one may itself
    /// wait for this.
    pub(crate) fn serve(&self, own: &impl Peer) {
        own.drop_translations();
        self.join(own);
        own.heed_stop();
    }

    /// Stands still while another CPU holds the rendezvous.
    pub(crate) fn join<P: Peer>(&self, own: &P) {
        if !self.is_stopped.get() {
            return;
        }
        // Counted before the mark goes: the initiator may end as soon as it sees no mark, and waits for those that it
        // counts.
        self.present.add();
        while self.is_stopped.get() {
            // Said again and again: one rendezvous may end and the next begin while this CPU stands here.
            own.awaited().set(false);
            own.drop_translations();
            own.heed_stop();
            P::relax();
        }
        self.present.remove();
    }
}

fn await_arrival<P: Peer>(own: &P, cpu: &P) {
    let mut patience = P::Patience::default();
    while cpu.awaited().get() {
        own.heed_stop();
        if !cpu.is_running() {
            // It went to wait for a start-up IPI meanwhile, and will meet us when it gets one.
            cpu.awaited().set(false);
            return;
        }
        own.wait_for(cpu, &mut patience);
    }
}

#[cfg(test)]
#[path = "rendezvous_tests.rs"]
mod tests;
