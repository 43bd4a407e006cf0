//! Named cases, and the array against a plain list of pages.

use super::{BOUNDARIES, Full, Protection, Protections, SPARE};
use crate::memory::range::GuestRange;
use crate::memory::views::View;
use proptest::prelude::*;
use x86::paging::Rights;

const READ_ONLY: Option<Protection> = Some(Protection::Rights(Rights::READ));
const NOTHING: Option<Protection> = Some(Protection::Rights(Rights::empty()));
const ALL: Option<Protection> = Some(Protection::Rights(Rights::all()));
const TOP: u64 = 1 << 52;

fn pages(start: u64, end: u64) -> GuestRange {
    GuestRange::between(start << 12, end << 12)
}

fn at(protections: &Protections, view: View, page: u64) -> (u64, u64, Option<Protection>) {
    let run = protections.run_at(view, page << 12 | 0xabc);
    (run.start >> 12, run.end >> 12, run.protection)
}

#[test]
fn nothing_is_set_at_first() {
    assert_eq!(at(&Protections::new(), View::SHARED, 7), (0, TOP >> 12, None));
}

#[test]
fn a_range_splits_and_joins_its_neighbours() {
    let mut p = Protections::new();
    assert_eq!(p.set(View::SHARED, pages(10, 20), READ_ONLY), Ok(()));
    assert_eq!(p.set(View::SHARED, pages(14, 15), NOTHING), Ok(()));
    assert_eq!(at(&p, View::SHARED, 13), (10, 14, READ_ONLY));
    assert_eq!(at(&p, View::SHARED, 14), (14, 15, NOTHING));
    assert_eq!(at(&p, View::SHARED, 19), (15, 20, READ_ONLY));
    assert_eq!(p.set(View::SHARED, pages(14, 15), READ_ONLY), Ok(()));
    assert_eq!(at(&p, View::SHARED, 11), (10, 20, READ_ONLY));
    assert_eq!(p.set(View::SHARED, pages(0, 100), None), Ok(()));
    assert!(p.boundaries.is_empty());
}

#[test]
fn views_do_not_see_each_other() {
    let mut p = Protections::new();
    let (one, two) = (View::of_cpu(1), View::of_cpu(2));
    assert_eq!(p.set(one, pages(0, 5), NOTHING), Ok(()));
    assert_eq!(p.set(two, pages(3, 9), READ_ONLY), Ok(()));
    assert_eq!(at(&p, View::SHARED, 4), (0, TOP >> 12, None));
    assert_eq!(at(&p, one, 4), (0, 5, NOTHING));
    assert_eq!(at(&p, two, 1), (0, 3, None));
    assert_eq!(at(&p, two, 4), (3, 9, READ_ONLY));
    p.clear(one);
    assert_eq!(at(&p, one, 4), (0, TOP >> 12, None));
    assert_eq!(at(&p, two, 4), (3, 9, READ_ONLY));
}

#[test]
fn a_full_array_refuses_and_stays_as_it_is() {
    let mut p = Protections::new();
    let count = (BOUNDARIES - SPARE) as u64 / 2;
    for page in 0..count {
        assert_eq!(p.set(View::SHARED, pages(2 * page, 2 * page + 1), READ_ONLY), Ok(()));
    }
    let last = 2 * count;
    assert_eq!(p.set(View::SHARED, pages(last, last + 1), READ_ONLY), Err(Full));
    assert_eq!(at(&p, View::SHARED, last), (last - 1, TOP >> 12, None));
    assert_eq!(p.set(View::SHARED, pages(1, 2), READ_ONLY), Ok(()));
    assert_eq!(at(&p, View::SHARED, 1), (0, 3, READ_ONLY));
}

#[test]
fn what_fills_the_array_can_be_taken_back_in_any_order() {
    let mut p = Protections::new();
    let count = (BOUNDARIES - SPARE) as u64 / 2;
    for run in 0..count {
        assert_eq!(p.set(View::SHARED, pages(4 * run, 4 * run + 3), READ_ONLY), Ok(()));
    }
    for run in 0..count {
        for page in [1, 0, 2] {
            assert_eq!(p.set(View::SHARED, pages(4 * run + page, 4 * run + page + 1), None), Ok(()), "{run}");
        }
    }
    assert!(p.boundaries.is_empty());
}

fn any_protection() -> impl Strategy<Value = Option<Protection>> {
    prop::sample::select(vec![None, NOTHING, READ_ONLY, ALL, Some(Protection::Decoy)])
}

proptest! {
    #[test]
    fn the_array_agrees_with_a_list_of_pages(
        sets in prop::collection::vec((0_usize..3, 0_u64..40, 1_u64..30, any_protection()), 0..40),
    ) {
        let views = [View::SHARED, View::of_cpu(0), View::of_cpu(900)];
        let mut p = Protections::new();
        let mut model = vec![[None; 72]; 3];
        for (view, start, length, protection) in sets {
            prop_assert_eq!(p.set(views[view], pages(start, start + length), protection), Ok(()));
            for page in start..start + length {
                model[view][usize::try_from(page).unwrap_or(0)] = protection;
            }
        }
        for (view, list) in views.iter().zip(&model) {
            for (page, protection) in (0..).zip(list) {
                let (start, end, got) = at(&p, *view, page);
                prop_assert_eq!(got, *protection);
                prop_assert!(start <= page && page < end);
                // A run is as long as it can be.
                prop_assert!(end > 71 || at(&p, *view, end).2 != got);
                prop_assert!(start == 0 || at(&p, *view, start - 1).2 != got);
            }
        }
    }
}

#[test]
fn decoy_pages_are_listed_in_every_view() {
    let mut protections = Protections::new();
    let own = View::of_cpu(3);
    let mut set = |view, start, end, protection| {
        protections.set(view, GuestRange::between(start, end), Some(protection)).unwrap();
    };
    set(View::SHARED, 0x1000, 0x3000, Protection::Decoy);
    set(View::SHARED, 0x3000, 0x5000, Protection::Rights(Rights::READ));
    set(View::SHARED, 0x7000, 0x8000, Protection::Decoy);
    set(own, 0x9000, 0xa000, Protection::Decoy);
    let pages: Vec<_> = protections.decoy_pages().collect();
    assert_eq!(pages, [0x1000, 0x2000, 0x7000, 0x9000]);
}
