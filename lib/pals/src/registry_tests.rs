//! Who is taken in, who is found, and what comes back.

use super::{Conflict, Registry};
use crate::fake::{Fake, PAL, SECTIONS, whole};
use crate::layout::{Kind, Layout, PAGE, Section, Step};
use crate::pal::{End, Key, Pal, State};
use crate::quota::Amounts;
use crate::sharing::SHARED_PAGES_LIMIT;
use std::sync::Arc;
use trustvisor::call::Failure;
use trustvisor::parameter::WordSize;
use trustvisor::probe::PAL_NUMBER_LIMIT;
use trustvisor::section::CAPACITY;
use trustvisor::status::Status;

/// Where a process shares a page.
const SHARED: u64 = 0x90_0000;
const KEY: Key = Key { nested_page: 0, address_space: 0x1000, entry: PAL };
const OTHER: Key = Key { address_space: 0x2000, ..KEY };
const LIMIT: Amounts = Amounts { pals: 64, pages: 400, runs: 400, regions: 400, bytes: 1 << 20 };

fn registry() -> Registry<()> {
    let mut registry = Registry::new();
    registry.start(LIMIT, 7, || ()).unwrap();
    registry
}

/// A layout whose pages lie `shift` pages further on.
fn layout(shift: u64) -> Layout {
    let fake = Fake::with_pal(&[]);
    for mapping in fake.mappings.borrow_mut().values_mut() {
        mapping.page += shift * PAGE;
    }
    // The lists moved too.
    fake.list_sections(&crate::fake::standard());
    whole(&fake, WordSize::Bits64, [SECTIONS, 0, PAL]).unwrap()
}

/// Takes a whole PAL in, as steps do.
fn register(registry: &mut Registry<()>, key: Key, layout: Layout) -> Result<Arc<Pal<()>>, Conflict<()>> {
    let entry_page = layout.entry_page().unwrap();
    let step = layout.step_from(0);
    let pal = registry.insert(key, entry_page, layout, ())?;
    match registry.claim(&pal, &step, None) {
        Ok(()) => {
            pal.lock().state = State::Idle;
            Ok(pal)
        }
        Err(conflict) => {
            registry.remove(&pal);
            Err(conflict)
        }
    }
}

/// Takes a PAL out.
fn remove(registry: &mut Registry<()>, pal: &Arc<Pal<()>>) {
    pages(pal).into_iter().for_each(|page| registry.unclaim(pal, page));
    registry.remove(pal);
}

fn pages(pal: &Arc<Pal<()>>) -> Vec<u64> {
    pal.lock().layout.pages().map(|(page, _)| page).collect()
}

fn status(result: Result<Arc<Pal<()>>, Conflict<()>>) -> Option<Status> {
    match result {
        Err(Conflict::Status(status)) => Some(status),
        _ => None,
    }
}

#[test]
fn a_pal_is_found_by_entry_and_by_each_page_until_it_is_gone() {
    let mut registry = registry();
    let pal = register(&mut registry, KEY, layout(0)).unwrap();
    let pages = pages(&pal);
    assert!(registry.find(KEY).is_some_and(|found| found.number == pal.number));
    assert!(pages.iter().all(|&page| registry.find_page(page).is_some()));
    assert!(registry.find_page(pages[0] + PAGE).is_none());
    assert!(registry.find(OTHER).is_none());
    remove(&mut registry, &pal);
    assert!(registry.is_empty() && pages.iter().all(|&page| registry.find_page(page).is_none()));
    registry.remove(&pal);
    assert!(register(&mut registry, KEY, layout(0)).is_ok());
}

#[test]
fn pages_have_one_owner_whoever_asks() {
    let mut registry = registry();
    assert!(register(&mut registry, KEY, layout(0)).is_ok());
    let taken = registry.accounts.taken();
    assert_eq!(status(register(&mut registry, KEY, layout(0))), Some(Status::ALREADY_REGISTERED));
    assert_eq!(status(register(&mut registry, OTHER, layout(0))), Some(Status::PAGE_TAKEN));
    let mut aliased = layout(2);
    aliased.sections[1].pages[0] = aliased.sections[3].pages[0];
    assert_eq!(status(register(&mut registry, OTHER, aliased)), Some(Status::SECTION_OVERLAP));
    assert_eq!(
        (registry.len(), registry.accounts.taken()),
        (1, taken),
        "nothing is left of what was refused"
    );
    assert!(register(&mut registry, OTHER, layout(1)).is_ok());
}

#[test]
fn what_is_at_its_end_or_not_complete_makes_way() {
    for state in
        [State::Building([1; 4]), State::Ending(End::Gone), State::Ending(End::Revoked), State::Revoked]
    {
        let mut registry = registry();
        let old = register(&mut registry, KEY, layout(0)).unwrap();
        old.lock().state = state;
        let Err(Conflict::Stale(stale)) = register(&mut registry, KEY, layout(0)) else {
            panic!("{state:?}")
        };
        assert_eq!(stale.number, old.number);
        let by_page = register(&mut registry, OTHER, layout(0));
        assert_eq!(
            matches!(by_page, Err(Conflict::Stale(_))),
            !matches!(state, State::Building(_)),
            "{state:?}"
        );
        old.lock().state = State::InTransit;
        assert!(matches!(register(&mut registry, KEY, layout(0)), Err(Conflict::Busy)));
    }
}

#[test]
fn a_pal_whose_process_is_gone_makes_way() {
    let mut registry = registry();
    let old = register(&mut registry, KEY, layout(0)).unwrap();
    let Err(Conflict::Stale(stale)) = register(&mut registry, KEY, layout(1)) else { panic!("it is stale") };
    assert_eq!(stale.number, old.number);
    remove(&mut registry, &stale);
    assert!(register(&mut registry, KEY, layout(1)).is_ok());
}

#[test]
fn a_revoked_pal_s_entry_is_left_until_its_process_gives_it_up() {
    let mut registry = registry();
    let pal = register(&mut registry, KEY, layout(0)).unwrap();
    let pages = pages(&pal);
    assert!(registry.find_revoked().is_none());
    pages[1..].iter().for_each(|&page| registry.unclaim(&pal, page));
    registry.retire(&pal);
    assert_eq!(pal.lock().state, State::Revoked);
    assert!(registry.find(KEY).is_some() && registry.find_revoked().is_some());
    assert_eq!(
        (pal.lock().layout.entry_page(), registry.find_page(pages[0]).is_some()),
        (Some(pages[0]), true)
    );
    let more = vec![Section { kind: Kind::Shared, start: SHARED, count: 1, pages: vec![0x77_7000] }];
    assert_eq!(registry.share(&pal, more), Err(Status::DEAD));
    // The same process, or the next one with its address space, begins anew.
    let Err(Conflict::Stale(stale)) = register(&mut registry, KEY, layout(0)) else { panic!("it is stale") };
    assert!(matches!(register(&mut registry, OTHER, layout(0)), Err(Conflict::Stale(_))), "another process");
    remove(&mut registry, &stale);
    assert_eq!((registry.accounts.taken(), registry.by_page.len()), (Amounts::default(), 0));
    assert!(register(&mut registry, KEY, layout(0)).is_ok());
}

#[test]
fn as_many_pals_fit_as_promised_and_numbers_differ() {
    let mut registry = registry();
    let key = |index: u64| Key { address_space: index << 12, ..KEY };
    // As many again and again: nothing is lost by coming and going.
    for round in 0..3 {
        let pals: Vec<_> = (0..64)
            .map(|index| register(&mut registry, key(index), layout((round * 64 + index) * 100)).unwrap())
            .collect();
        assert_eq!(status(register(&mut registry, key(64), layout(999_900))), Some(Status::OUT_OF_MEMORY));
        let serials: std::collections::BTreeSet<_> = pals.iter().map(|pal| pal.lock().serial).collect();
        let numbers: std::collections::BTreeSet<_> = pals.iter().map(|pal| pal.number).collect();
        assert_eq!((serials.len(), numbers.len(), registry.all().count()), (64, 64, 64));
        // In another order than they came in.
        pals.iter()
            .step_by(2)
            .chain(pals.iter().skip(1).step_by(2))
            .for_each(|pal| remove(&mut registry, pal));
        assert_eq!((registry.accounts.taken(), registry.by_page.len()), (Amounts::default(), 0));
    }
}

#[test]
fn one_process_leaves_room_for_others() {
    let mut registry = registry();
    let entry = |index: u64| Key { entry: PAL + index, ..KEY };
    let end = (0..).find_map(|index| status(register(&mut registry, entry(index), layout(index * 100))));
    assert_eq!((end, registry.len()), (Some(Status::QUOTA), 48));
    assert!(register(&mut registry, OTHER, layout(999_900)).is_ok());
}

#[test]
fn a_pal_that_somebody_still_looks_at_is_not_made_another() {
    let mut registry = registry();
    let old = register(&mut registry, KEY, layout(0)).unwrap();
    remove(&mut registry, &old);
    let new = register(&mut registry, KEY, layout(0)).unwrap();
    assert!(!Arc::ptr_eq(&old, &new));
    assert_eq!(old.lock().state, State::InTransit);
}

#[test]
fn shared_pages_are_claimed_followed_and_given_up() {
    let mut registry = registry();
    let pal = register(&mut registry, KEY, layout(0)).unwrap();
    assert!(register(&mut registry, OTHER, layout(1)).is_ok());
    let fake = Fake::with_pal(&[]);
    fake.map(SHARED, true, false);
    let section = |start, page| Section { kind: Kind::Shared, start, count: 1, pages: vec![page] };
    let own = pal.lock().layout.sections[1].clone();

    pal.lock().state = State::InTransit;
    assert_eq!(registry.share(&pal, vec![section(SHARED, 0x77_7000)]), Err(Status::BUSY), "in transit");
    pal.lock().state = State::Idle;
    let serial = pal.lock().serial;
    assert_eq!(registry.share(&pal, vec![section(own.start, 0x77_7000)]), Err(Status::SECTION_OVERLAP));
    assert_eq!(registry.share(&pal, vec![section(SHARED, own.pages[0])]), Err(Status::SECTION_OVERLAP));
    assert_eq!(registry.share(&pal, vec![section(SHARED, own.pages[0] + PAGE)]), Err(Status::PAGE_TAKEN));
    assert_eq!(registry.share(&pal, vec![section(SHARED, SHARED * 16)]), Ok(()));
    assert_eq!(pal.lock().state, State::Idle);
    assert!(registry.find_page(SHARED * 16).is_some());
    assert_ne!(pal.lock().serial, serial);
    assert_eq!(pal.lock().layout.translate(SHARED + 5, true), Some(SHARED * 16 + 5));

    // The process has another page there now, then another PAL's, then none.
    let move_to = |page| {
        if let Some(mapping) = fake.mappings.borrow_mut().get_mut(&SHARED) {
            mapping.page = page;
        }
    };
    let refresh = |registry: &mut Registry<()>| {
        let now = pal.lock().shared_now(&fake, &fake)?;
        registry.settle(&pal, &now.unwrap())
    };
    let serial = pal.lock().serial;
    assert_eq!((refresh(&mut registry), pal.lock().serial), (Ok(()), serial));
    move_to(0x55_5000);
    assert_eq!(refresh(&mut registry), Ok(()));
    assert_ne!(pal.lock().serial, serial);
    assert_eq!(pal.lock().layout.translate(SHARED, true), Some(0x55_5000));
    assert!(registry.find_page(SHARED * 16).is_none() && registry.find_page(0x55_5000).is_some());
    move_to(own.pages[0] + PAGE);
    assert_eq!(refresh(&mut registry), Err(Failure::BAD_POINTER));
    fake.mappings.borrow_mut().remove(&SHARED);
    assert_eq!(refresh(&mut registry), Err(Failure::BAD_POINTER));
    remove(&mut registry, &pal);
    assert!(registry.find_page(0x55_5000).is_none());
}

#[test]
fn shares_count_to_the_byte_and_each_page_is_followed() {
    let mut registry = registry();
    let pal = register(&mut registry, KEY, layout(0)).unwrap();
    let fake = Fake::with_pal(&[]);
    (0..8).for_each(|index| fake.map(SHARED + index * PAGE, true, false));
    let page = |index: u64| (SHARED + index * PAGE) * 16;
    let section = |first: u64, count: u32| Section {
        kind: Kind::Shared,
        start: SHARED + first * PAGE,
        count,
        pages: (first..).map(page).take(count as usize).collect(),
    };
    let before = registry.accounts.taken();
    assert_eq!(registry.share(&pal, vec![section(0, 3), section(5, 2)]), Ok(()));
    let more = Amounts { pages: 5, bytes: 2 * 96 + 5 * 8, ..Amounts::default() };
    assert_eq!(registry.accounts.taken(), before.and(more));
    let now = pal.lock().shared_now(&fake, &fake).unwrap().unwrap();
    assert_eq!(now.as_slice(), [0, 1, 2, 5, 6].map(page));
    remove(&mut registry, &pal);
    assert_eq!((registry.accounts.taken(), registry.is_empty()), (Amounts::default(), true));
}

#[test]
fn who_registers_a_page_takes_it_from_who_shares_it() {
    let mut registry = registry();
    let sharer = register(&mut registry, KEY, layout(0)).unwrap();
    let fake = Fake::with_pal(&[]);
    fake.map(SHARED, true, false);
    let page = layout(5).sections[1].pages[0];
    if let Some(mapping) = fake.mappings.borrow_mut().get_mut(&SHARED) {
        mapping.page = page;
    }
    let section = Section { kind: Kind::Shared, start: SHARED, count: 1, pages: vec![page] };
    assert_eq!(registry.share(&sharer, vec![section]), Ok(()));
    sharer.lock().state = State::Running(0);
    assert!(
        matches!(register(&mut registry, OTHER, layout(5)), Err(Conflict::Busy)),
        "a call has it just now"
    );
    sharer.lock().state = State::Idle;
    let owner = register(&mut registry, OTHER, layout(5)).unwrap();
    assert!(registry.find_page(page).is_some_and(|found| Arc::ptr_eq(&found, &owner)));
    // The other PAL's next call looks where its page is, and finds that it has none.
    let now = sharer.lock().shared_now(&fake, &fake).unwrap().unwrap();
    assert_eq!(registry.settle(&sharer, &now), Err(Failure::BAD_POINTER));
    remove(&mut registry, &sharer);
    assert!(registry.find_page(page).is_some());
}

#[test]
fn a_pal_shares_where_its_header_says_so_not_below_its_stack() {
    let mut registry = registry();
    let pal = register(&mut registry, KEY, layout(0)).unwrap();
    let share = |registry: &mut Registry<()>, start, count: u32| {
        let pages = (0..u64::from(count)).map(|index| 0x7700_0000 + start + index * PAGE).collect();
        registry.share(&pal, vec![Section { kind: Kind::Shared, start, count, pages }])
    };
    pal.lock().layout.flags = 0;
    assert_eq!(share(&mut registry, SHARED, 1), Err(Status::NO_SHARE));
    pal.lock().layout.flags = trustvisor::flags::ACCEPTS_SHARE;
    // Its data and parameters lie right below the stack here; of a stack elsewhere nothing does.
    let stack = 0x80_0000;
    pal.lock().layout.sections[3].start = stack;
    for (start, count) in [(stack - PAGE, 1), (stack - 16 * PAGE, 1), (stack - 20 * PAGE, 5)] {
        assert_eq!(share(&mut registry, start, count), Err(Status::STACK_GUARD), "{start:#x}");
    }
    assert_eq!(share(&mut registry, stack - 20 * PAGE, 4), Ok(()));
    assert_eq!(share(&mut registry, stack + PAGE, 60), Ok(()));
    assert_eq!(share(&mut registry, SHARED, 1), Err(Status::SECTION_SIZE), "64 pages are shared");
}

#[test]
fn runs_of_pages_count_as_they_lie_in_memory() {
    let mut registry = registry();
    let pal = registry.insert(KEY, 0, layout(0), ()).unwrap();
    let found = |page: u64| crate::layout::FoundPage { page, kind: Kind::Shared };
    let step: Step = [0x1000, 0x2000, 0x5000].map(found).into_iter().collect();
    assert!(registry.claim(&pal, &step, None).is_ok());
    let step: Step = [0x6000, 0x8000].map(found).into_iter().collect();
    assert!(registry.claim(&pal, &step, Some(0x5000)).is_ok());
    assert_eq!(pal.lock().amounts.runs, 3);
}

/// Sections to share, of one page each unless `pages` says otherwise, side by side from `start` on.
fn side_by_side(start: u64, count: u64, pages: u64) -> Vec<Section> {
    let physical =
        |index| (0..pages).map(move |page| 0x1_0000_0000 + (index * pages + page) * PAGE).collect();
    let section = |index| Section {
        kind: Kind::Shared,
        start: start + index * pages * PAGE,
        count: pages as u32,
        pages: physical(index),
    };
    (0..count).map(section).collect()
}

#[test]
fn sections_and_pages_may_reach_each_limit_and_not_one_beyond() {
    let mut registry = registry();
    let pal = register(&mut registry, KEY, layout(0)).unwrap();
    let room = CAPACITY as u64 - 4;
    assert_eq!(registry.share(&pal, side_by_side(SHARED, room + 1, 1)), Err(Status::SECTION_COUNT));
    assert_eq!(registry.share(&pal, side_by_side(SHARED, room, 1)), Ok(()));
    remove(&mut registry, &pal);
    let pal = register(&mut registry, KEY, layout(0)).unwrap();
    let room = SHARED_PAGES_LIMIT as u64;
    assert_eq!(registry.share(&pal, side_by_side(SHARED, 1, room + 1)), Err(Status::SECTION_SIZE));
    assert_eq!(registry.share(&pal, side_by_side(SHARED, 1, room)), Ok(()));
}

#[test]
fn sections_may_touch_and_not_overlap() {
    let mut registry = registry();
    let pal = register(&mut registry, KEY, layout(0)).unwrap();
    let own = pal.lock().layout.sections[0].start;
    let end = pal.lock().layout.sections[3].end();
    for start in [own - 2 * PAGE, own - PAGE, own, end - PAGE] {
        let refused = registry.share(&pal, side_by_side(start, 1, 3));
        assert_eq!(refused, Err(Status::SECTION_OVERLAP), "{start:#x}");
    }
    let mut crossed = side_by_side(SHARED, 2, 2);
    crossed[1].start -= PAGE;
    assert_eq!(registry.share(&pal, crossed.clone()), Err(Status::SECTION_OVERLAP), "each other");
    crossed.reverse();
    assert_eq!(registry.share(&pal, crossed), Err(Status::SECTION_OVERLAP), "each other");
    let behind = side_by_side(end, 2, 1);
    assert_eq!(registry.share(&pal, behind), Ok(()));
}

#[test]
fn numbers_begin_anew_before_their_limit() {
    let mut registry = Registry::<()>::new();
    registry.next_number = PAL_NUMBER_LIMIT - 2;
    let numbers = [(); 4].map(|()| registry.take_number());
    assert_eq!(numbers, [PAL_NUMBER_LIMIT - 2, PAL_NUMBER_LIMIT - 1, 1, 2]);
}

#[test]
fn a_registry_is_empty_until_a_pal_is_in_it() {
    let mut registry = registry();
    assert!(registry.is_empty());
    let pal = register(&mut registry, KEY, layout(0)).unwrap_or_else(|_| panic!("it is refused"));
    assert!(!registry.is_empty());
    remove(&mut registry, &pal);
    assert!(registry.is_empty());
}
