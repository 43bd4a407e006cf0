//! The end of stale translations: every CPU drops its own on its way, and nobody stands still.
//!
//! The initiator marks each CPU whose guest may run and has it leave its guest. That CPU drops its translations before it
//! enters again and goes on at once; the initiator waits until all marks are gone. A CPU that waits here serves the
//! others' marks on itself, and joins a rendezvous, so that two initiators never wait for each other. No lock is held
//! meanwhile that another CPU could want.

use super::peer::{Count, Flag, Peer};
use super::rendezvous::Rendezvous;

/// Returns when no guest code can use a second-level translation from before the call, which `own` executes.
pub(super) fn shoot_down<P: Peer>(own: &P, rendezvous: &Rendezvous<impl Flag, impl Count>) {
    for cpu in own.others().filter(|cpu| cpu.is_running()) {
        // The mark comes first: a CPU that was woken without it would go on with what it has.
        cpu.stale().set(true);
        cpu.wake();
    }
    // This CPU drops its own while the others are on their way.
    own.stale().set(true);
    own.drop_translations();
    for cpu in own.others() {
        let mut patience = P::Patience::default();
        // A CPU that waits for a start-up IPI drops its translations when it starts.
        while cpu.stale().get() && cpu.is_running() {
            rendezvous.serve(own);
            own.wait_for(cpu, &mut patience);
        }
    }
}
