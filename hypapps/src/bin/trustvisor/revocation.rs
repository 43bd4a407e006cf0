//! PALs that end without their process: a write to their pages, or the end of the machine.

use crate::memory::Machine;
use crate::registration::{cover, give_back};
use crate::state::{Pal, REGISTRY};
use alloc::sync::Arc;
use pals::machine::Cover;
use pals::pal::{Revocation, State};
use runtime::services::quiesce;

/// Takes a PAL's pages from it: what it could write is zeroed, then the guest gets the pages back. Where it runs on
/// another CPU, that one is stopped first, and ends the call before it goes on.
///
/// Its entry stays closed until the process unregisters it, so that no call runs what lies there now.
pub(crate) fn revoke(pal: &Arc<Pal>) {
    let begin = |is_stopped| pal.lock().begin_revocation(is_stopped);
    let begun = match begin(false) {
        Revocation::Runs => quiesce(|_| begin(true)),
        begun => begun,
    };
    // Where somebody else is at it, the guest comes again.
    if begun != Revocation::Begun {
        return;
    }
    let entry = {
        let mut inner = pal.lock();
        inner.end(State::InTransit, &Machine);
        inner.belongings.measurement = None;
        inner.layout.entry_page()
    };
    let closed = |page, _| if Some(page) == entry { Cover::NoFetch } else { Cover::Open };
    if cover(pal, closed).is_err() {
        // Without room to tell the entry apart, the PAL is forgotten altogether.
        return give_back(pal);
    }
    REGISTRY.lock().retire(pal);
}

/// Forgets a PAL that was revoked, if it was.
pub(crate) fn forget(pal: &Arc<Pal>) -> bool {
    {
        let mut inner = pal.lock();
        if inner.state != State::Revoked {
            return false;
        }
        inner.state = State::InTransit;
    }
    give_back(pal);
    true
}

/// Forgets one of the PALs that were revoked, for the room it takes.
pub(crate) fn forget_one() -> bool {
    let revoked = REGISTRY.lock().find_revoked();
    revoked.is_some_and(|pal| forget(&pal))
}

/// Zeroes the pages of every PAL: the guest's end. No guest code runs any more.
pub(crate) fn end_all() {
    for pal in REGISTRY.lock().all() {
        let mut inner = pal.lock();
        if inner.state != State::Revoked {
            inner.layout.zero_all(&Machine);
            inner.end(State::Revoked, &Machine);
        }
    }
}
