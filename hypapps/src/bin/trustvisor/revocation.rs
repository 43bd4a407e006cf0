//! PALs that end, step by step: at their process's word, at a write to their pages, or with the machine.

use crate::memory::Machine;
use crate::state::{Pal, REGISTRY};
use alloc::sync::Arc;
use pals::layout::{Kind, STEP_PAGES, Step, zero};
use pals::machine::{Cover, Inaccessible, Pages};
use pals::pal::{End, Revocation, State};
use runtime::services::quiesce;

/// How far an end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// It is over.
    Ended(End),
    /// There is more to do, or another CPU is at it, or the PAL is not ending.
    More,
}

/// Takes a PAL's pages from it: what it could write is zeroed, then the guest gets the pages back, some at a time.
/// Where it runs on another CPU, that one is stopped first, and ends the call before it goes on.
///
/// Its entry stays closed until the process unregisters it, so that no call runs what lies there now.
pub(crate) fn revoke(pal: &Arc<Pal>) {
    let begin = |is_stopped| pal.lock().begin_revocation(is_stopped);
    let begun = match begin(false) {
        Revocation::Runs => quiesce(|_| begin(true)),
        begun => begun,
    };
    // Where somebody else is at it, or more is to do, the guest comes again.
    if begun == Revocation::Begun {
        go_on(pal);
    }
}

/// Does a step of a PAL's end.
pub(crate) fn go_on(pal: &Arc<Pal>) -> Progress {
    let (end, step, entry) = {
        let mut inner = pal.lock();
        let Some((end, step)) = inner.next_of_end() else { return Progress::More };
        let entry = inner.layout.entry_page().filter(|_| end == End::Revoked);
        (end, step, entry)
    };
    // While the guest can still not read them.
    step.iter().for_each(|found| zero(&Machine, *found));
    if end != End::Faulted {
        if open(&step, entry).is_err() {
            // Without room to tell the entry apart, nothing is left of the PAL.
            pal.lock().begin_end(End::Gone);
            return Progress::More;
        }
        // Only once they are open: a page that is nobody's may be covered for another PAL at once, and would be
        // opened under it.
        let mut registry = REGISTRY.lock();
        step.iter()
            .filter(|found| Some(found.page) != entry)
            .for_each(|found| registry.unclaim(pal, found.page));
    }
    let mut inner = pal.lock();
    inner.ended += step.len();
    if step.len() == STEP_PAGES {
        inner.state = State::Ending(end);
        return Progress::More;
    }
    if end == End::Faulted {
        inner.state = State::Faulted;
        return Progress::Ended(end);
    }
    if let Some(measurement) = &mut inner.belongings.measurement {
        measurement.give_up();
        if measurement.forget() {
            inner.state = State::Ending(end);
            return Progress::More;
        }
    }
    inner.belongings.measurement = None;
    drop(inner);
    match end {
        End::Revoked => REGISTRY.lock().retire(pal),
        _ => REGISTRY.lock().remove(pal),
    }
    Progress::Ended(end)
}

/// Opens pages to the guest, the page of the entry to all but fetches.
fn open(step: &Step, entry: Option<u64>) -> Result<(), Inaccessible> {
    let hidden = step.iter().filter(|found| found.kind != Kind::Shared);
    let opened = |page| if Some(page) == entry { Cover::NoFetch } else { Cover::Open };
    Machine.cover(&mut hidden.map(|found| (found.page, opened(found.page))))
}

/// Forgets a PAL that was revoked, if it was.
pub(crate) fn forget(pal: &Arc<Pal>) -> bool {
    {
        let mut inner = pal.lock();
        if inner.state != State::Revoked {
            return false;
        }
        inner.begin_end(End::Gone);
    }
    // It is a single page.
    go_on(pal);
    true
}

/// Forgets one of the PALs that were revoked, for the room it takes.
pub(crate) fn forget_one() -> bool {
    let revoked = REGISTRY.lock().find_revoked();
    revoked.is_some_and(|pal| forget(&pal))
}

/// Does a step towards a PAL's signer, with nothing locked meanwhile; false where that is known, or is not to be.
pub(crate) fn verify(pal: &Pal) -> bool {
    let mut step = {
        let mut inner = pal.lock();
        let Some(measurement) = &mut inner.belongings.measurement else { return false };
        match measurement.take_signing() {
            Some(step) => step,
            None => return !measurement.signing.is_settled(),
        }
    };
    step.make();
    if let Some(measurement) = &mut pal.lock().belongings.measurement {
        measurement.signing.give(step);
    }
    true
}

/// Does a step of a PAL's measurement, with nothing locked while it hashes; false where all is hashed.
pub(crate) fn measure(pal: &Pal) -> bool {
    let mut piece = {
        let mut inner = pal.lock();
        let inner = &mut *inner;
        let Some(measurement) = &mut inner.belongings.measurement else { return false };
        if measurement.forget() {
            return true;
        }
        if measurement.banks(&inner.layout).is_some() {
            return false;
        }
        if measurement.hash_header(&inner.layout) {
            return true;
        }
        let Some(piece) = measurement.take(&inner.layout, &Machine) else { return true };
        piece
    };
    piece.hash();
    let mut inner = pal.lock();
    let inner = &mut *inner;
    if let Some(measurement) = &mut inner.belongings.measurement {
        measurement.give(&inner.layout, piece);
    }
    true
}

/// Zeroes the pages of every PAL: the guest's end. No guest code runs any more.
pub(crate) fn end_all() {
    for pal in REGISTRY.lock().all() {
        pal.lock().end_at_once(&Machine);
    }
}
