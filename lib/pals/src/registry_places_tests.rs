//! What maps pages of PALs, and who gives a page back.

use super::tests::{KEY, registry};
use super::{Conflict, Registry};
use crate::fake::{Fake, PAL, SECTIONS};
use crate::layout::{Layout, Step};
use crate::pal::Pal;
use crate::quota::Amounts;
use std::sync::Arc;
use trustvisor::parameter::WordSize;
use trustvisor::status::Status;

const TABLE: u64 = Fake::entry(PAL) & !0xfff;

fn inserted(registry: &mut Registry<()>) -> (Arc<Pal<()>>, Step) {
    let fake = Fake::with_pal(&[]);
    let layout = Layout::read(&fake, WordSize::Bits64, 0, [SECTIONS, 0, PAL]).unwrap();
    let step = layout.find_next(&fake, &fake).unwrap();
    let pal = registry.insert(KEY, step[0].page, layout, ()).unwrap();
    (pal, step)
}

#[test]
fn a_page_is_given_back_once_and_found_until_then() {
    let mut registry = registry();
    let (pal, step) = inserted(&mut registry);
    registry.claim(&pal, &step, None).unwrap();
    let leaves: Vec<_> =
        core::iter::successors(registry.next_leaf(TABLE), |leaf| registry.next_leaf(leaf.at + 8)).collect();
    let found: Vec<_> = step.iter().map(|found| found.leaf.unwrap()).collect();
    assert_eq!((registry.is_watched(TABLE), &leaves), (true, &found));
    for (leaf, found) in leaves.iter().zip(&step) {
        let (owner, known) = registry.find_mapped(found.page, leaf.at).unwrap();
        assert!(Arc::ptr_eq(&owner, &pal) && known.kind == found.kind);
        assert!(registry.find_mapped(found.page, leaf.at + 8).is_none());
    }
    let page = step[0].page;
    assert!(registry.holds(&pal, page) && registry.begin_give_back(&pal, page));
    assert!(!registry.holds(&pal, page) && !registry.begin_give_back(&pal, page));
    registry.keep(&pal, page);
    assert!(registry.holds(&pal, page) && registry.begin_give_back(&pal, page));
    let left: Vec<_> = step.iter().map(|found| registry.unclaim(&pal, found.page)).collect();
    // The table goes with the last.
    assert_eq!(left, [None, None, None, Some(TABLE)]);
    assert!(!registry.begin_give_back(&pal, page) && !registry.is_watched(TABLE));
    registry.remove(&pal);
    assert_eq!(registry.accounts.taken(), Amounts::default());
}

#[test]
fn an_entry_that_changed_unnoticed_is_looked_at_first() {
    let mut registry = registry();
    let (pal, step) = inserted(&mut registry);
    registry.claim(&pal, &step, None).unwrap();
    let mut moved = step.clone();
    moved.truncate(1);
    moved[0].page += 0x10_0000;
    moved[0].leaf = moved[0].leaf.map(|leaf| crate::machine::Leaf { value: leaf.value + 0x10_0000, ..leaf });
    let before = registry.accounts.taken();
    let refused = registry.claim(&pal, &moved, None);
    assert!(matches!(refused, Err(Conflict::Outdated(TABLE))), "{refused:?}");
    assert_eq!(registry.accounts.taken(), before);
}

#[test]
fn what_maps_a_pal_is_no_pals_page() {
    let refused = |result| matches!(result, Err(Conflict::Status(Status::PAGE_TAKEN)));
    // A table that is one of the pages that it maps, whichever comes first.
    for table in [0, 3] {
        let mut registry = registry();
        let (pal, mut step) = inserted(&mut registry);
        step[table].page = TABLE;
        assert!(refused(registry.claim(&pal, &step, None)), "{table}");
        assert!(!registry.is_watched(TABLE) && registry.find_page(TABLE).is_none());
    }
}
