//! PALs that end without their process: a write to their pages, or the end of the machine.

use crate::memory::Machine;
use crate::registration::give_back;
use crate::state::{Pal, REGISTRY};
use alloc::sync::Arc;
use alloc::vec::Vec;
use pals::pal::State;
use runtime::services::quiesce;

/// Takes a PAL's pages from it: what it could write is zeroed, then the guest gets the pages back. Where it runs on
/// another CPU, that one is stopped first, and ends the call before it goes on.
pub(crate) fn revoke(pal: &Arc<Pal>) {
    loop {
        let state = pal.lock().state;
        let is_ended = match state {
            // Somebody else is at it; the guest comes again.
            State::InTransit => return,
            State::Running(_) => quiesce(|_| end(pal)),
            _ => end_unless_running(pal),
        };
        if is_ended {
            break;
        }
    }
    give_back(pal);
}

/// Zeroes what every PAL could write: the guest's end. No guest code runs any more.
pub(crate) fn end_all() {
    let pals: Vec<Arc<Pal>> = REGISTRY.lock().all().cloned().collect();
    for pal in pals {
        pal.lock().end(State::Revoked, &Machine);
    }
}

fn end(pal: &Pal) -> bool {
    let mut inner = pal.lock();
    let is_ours = inner.state != State::InTransit;
    if is_ours {
        inner.end(State::Revoked, &Machine);
    }
    is_ours
}

fn end_unless_running(pal: &Pal) -> bool {
    let mut inner = pal.lock();
    if matches!(inner.state, State::Running(_) | State::InTransit) {
        return false;
    }
    inner.end(State::Revoked, &Machine);
    true
}
