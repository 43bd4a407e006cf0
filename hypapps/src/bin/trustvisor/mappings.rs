//! What maps the pages of PALs in their processes: a page that the system takes away is the system's again before it
//! goes on, and the PAL is at its end.

use crate::memory::Machine;
use crate::revocation;
use crate::state::{Pal, REGISTRY};
use alloc::sync::Arc;
use pals::layout::{PAGE, Step};
use pals::machine::{Cover, Leaf, Pages};
use runtime::hypapp::WatchedWrite;

/// The page table at `table` is written, and is open.
pub(crate) fn written(table: u64, write: WatchedWrite) {
    // Watched before it is looked at: what is written later is noticed.
    let is_watched = write == WatchedWrite::Done && watch(table);
    let mut from = table;
    while from < table + PAGE {
        let next = REGISTRY.lock().next_leaf(from);
        let Some(leaf) = next else { break };
        from = leaf.at + leaf.bytes() as u64;
        // Of what can change unseen from now on, nothing stays a PAL's.
        if !is_watched || !is_as_before(leaf) {
            lose(leaf);
        }
    }
}

/// Has the table watched again, if it is still one of a PAL's; returns whether it is.
fn watch(table: u64) -> bool {
    {
        let registry = REGISTRY.lock();
        if !registry.is_watched(table) {
            // While the registry is locked: nobody has it watched anew meanwhile.
            Machine.unwatch(table);
            return false;
        }
    }
    Machine.cover(&mut [(table, Cover::Watched)].into_iter()).is_ok()
}

/// Returns whether an entry maps what it did.
pub(crate) fn is_as_before(leaf: Leaf) -> bool {
    let mut bytes = [0; 8];
    Machine.read(leaf.at, &mut bytes[..leaf.bytes()]);
    leaf.is_kept_by(u64::from_le_bytes(bytes))
}

/// Gives back what an entry mapped, of PALs that end by that.
fn lose(leaf: Leaf) {
    let mut lost: Option<(Arc<Pal>, Step)> = None;
    for page in leaf.pages() {
        let found = REGISTRY.lock().find_mapped(page, leaf.at);
        let Some((pal, found)) = found else { continue };
        match &mut lost {
            Some((known, pages)) if Arc::ptr_eq(known, &pal) && !pages.is_full() => pages.push(found),
            _ => {
                let first = [found].into_iter().collect();
                if let Some((pal, pages)) = lost.replace((pal, first)) {
                    revocation::lose(&pal, &pages);
                }
            }
        }
    }
    if let Some((pal, pages)) = lost {
        revocation::lose(&pal, &pages);
    }
}
