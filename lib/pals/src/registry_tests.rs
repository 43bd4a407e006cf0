//! Who is taken in, who is found, and what comes back.

use super::{
    BYTES_A_PAGE, BYTES_A_PAL, BYTES_A_PARAMETER, BYTES_A_SECTION, Conflict, PAGES_LIMIT, Registry,
    heap_bytes,
};
use crate::fake::{Fake, PAL, PARAMETERS, SECTIONS};
use crate::layout::{Kind, Layout, PAGE, Parameter, Section};
use crate::pal::{Key, State};
use trustvisor::call::Failure;
use trustvisor::parameter::{ParameterType, WordSize};
use trustvisor::probe::PAL_NUMBER_LIMIT;
use trustvisor::section::CAPACITY;
use trustvisor::status::Status;

/// Where a process shares a page.
const SHARED: u64 = 0x90_0000;
const KEY: Key = Key { nested_page: 0, address_space: 0x1000, entry: PAL };

/// A layout whose pages lie `shift` pages further on.
fn layout(shift: u64) -> Layout {
    let fake = Fake::with_pal(&[]);
    for mapping in fake.mappings.borrow_mut().values_mut() {
        mapping.page += shift * PAGE;
    }
    // The lists moved too.
    fake.list_sections(&crate::fake::standard());
    let layout = Layout::read(&fake, &fake, WordSize::Bits64, [SECTIONS, 0, PAL]);
    let _ = PARAMETERS;
    layout.unwrap_or_else(|status| panic!("{status:?}"))
}

fn status(registry: &mut Registry<()>, key: Key, layout: Layout) -> Option<Status> {
    match registry.insert(key, layout, ()) {
        Err(Conflict::Status(status)) => Some(status),
        _ => None,
    }
}

#[test]
fn a_pal_is_found_by_entry_and_by_each_page_until_it_is_gone() {
    let mut registry = Registry::new(1 << 20);
    let Ok(pal) = registry.insert(KEY, layout(0), ()) else { panic!("there is room") };
    let pages: Vec<u64> = pal.lock().layout.pages().map(|(page, _)| page).collect();
    assert!(registry.find(KEY).is_some_and(|found| found.number == pal.number));
    assert!(pages.iter().all(|&page| registry.find_page(page).is_some()));
    assert!(registry.find_page(pages[0] + PAGE).is_none());
    assert!(registry.find(Key { nested_page: 0, address_space: 0x2000, ..KEY }).is_none());
    registry.remove(&pal);
    assert!(registry.is_empty() && pages.iter().all(|&page| registry.find_page(page).is_none()));
    registry.remove(&pal);
    assert!(registry.insert(KEY, layout(0), ()).is_ok());
}

#[test]
fn pages_have_one_owner_whoever_asks() {
    let mut registry = Registry::new(1 << 20);
    assert!(registry.insert(KEY, layout(0), ()).is_ok());
    let other = Key { nested_page: 0, address_space: 0x2000, ..KEY };
    assert_eq!(status(&mut registry, KEY, layout(0)), Some(Status::ALREADY_REGISTERED));
    assert_eq!(status(&mut registry, other, layout(0)), Some(Status::PAGE_TAKEN));
    assert!(registry.insert(other, layout(1), ()).is_ok());
    let mut aliased = layout(2);
    aliased.sections[1].pages[0] = aliased.sections[3].pages[0];
    let third = Key { nested_page: 0, address_space: 0x3000, ..KEY };
    assert_eq!(status(&mut registry, third, aliased), Some(Status::SECTION_OVERLAP));
    assert_eq!(registry.len(), 2);
}

#[test]
fn a_pal_whose_process_is_gone_makes_way() {
    let mut registry = Registry::new(1 << 20);
    let Ok(old) = registry.insert(KEY, layout(0), ()) else { panic!("there is room") };
    let Err(Conflict::Stale(stale)) = registry.insert(KEY, layout(1), ()) else { panic!("it is stale") };
    assert_eq!(stale.number, old.number);
    registry.remove(&stale);
    assert!(registry.insert(KEY, layout(1), ()).is_ok());
}

#[test]
fn a_revoked_pal_s_entry_is_left_until_its_process_gives_it_up() {
    let mut registry = Registry::new(1 << 20);
    let whole = registry.budget;
    let Ok(pal) = registry.insert(KEY, layout(0), ()) else { panic!("there is room") };
    let pages: Vec<u64> = pal.lock().layout.pages().map(|(page, _)| page).collect();
    assert!(registry.find_revoked().is_none());
    registry.retire(&pal);
    assert_eq!(pal.lock().state, State::Revoked);
    assert!(registry.find(KEY).is_some() && registry.find_revoked().is_some());
    assert!(registry.find_page(pages[0]).is_some());
    assert!(pages[1..].iter().all(|&page| registry.find_page(page).is_none()));
    let more = vec![Section { kind: Kind::Shared, start: SHARED, pages: vec![0x77_7000] }];
    assert_eq!(registry.share(&pal, more), Err(Status::DEAD));
    // The same process, or the next one with its address space, begins anew.
    let Err(Conflict::Stale(stale)) = registry.insert(KEY, layout(0), ()) else { panic!("it is stale") };
    let other = Key { address_space: 0x2000, ..KEY };
    assert!(matches!(registry.insert(other, layout(0), ()), Err(Conflict::Stale(_))), "another process");
    registry.remove(&stale);
    assert_eq!((registry.budget, registry.find_page(pages[0]).is_none()), (whole, true));
    assert!(registry.insert(KEY, layout(0), ()).is_ok());
}

#[test]
fn the_budget_ends_and_comes_back_and_numbers_differ() {
    let mut registry = Registry::new(100_000);
    let key = |index| Key { nested_page: 0, address_space: index << 12, entry: PAL };
    let mut pals = Vec::new();
    let end = (1..).find_map(|index| match registry.insert(key(index), layout(index * 100), ()) {
        Ok(pal) => {
            pals.push(pal);
            None
        }
        Err(Conflict::Status(status)) => Some(status),
        Err(Conflict::Stale(_)) => None,
    });
    assert_eq!(end, Some(Status::OUT_OF_MEMORY));
    assert!(pals.len() > 20);
    let serials: std::collections::BTreeSet<_> = pals.iter().map(|pal| pal.lock().serial).collect();
    let numbers: std::collections::BTreeSet<_> = pals.iter().map(|pal| pal.number).collect();
    assert_eq!((serials.len(), numbers.len()), (pals.len(), pals.len()));
    assert!(registry.all().count() == pals.len());
    let Some(last) = pals.pop() else { return };
    registry.remove(&last);
    assert!(registry.insert(key(9999), layout(999_900), ()).is_ok());
}

#[test]
fn shared_pages_are_claimed_followed_and_given_up() {
    let mut registry = Registry::new(1 << 20);
    let Ok(pal) = registry.insert(KEY, layout(0), ()) else { panic!("there is room") };
    let other = Key { nested_page: 0, address_space: 0x2000, ..KEY };
    assert!(registry.insert(other, layout(1), ()).is_ok());
    let fake = Fake::with_pal(&[]);
    fake.map(SHARED, true, false);
    let section = |start, page| Section { kind: Kind::Shared, start, pages: vec![page] };
    let own = pal.lock().layout.sections[1].clone();

    assert_eq!(registry.share(&pal, vec![section(SHARED, 0x77_7000)]), Err(Status::BUSY), "in transit");
    pal.lock().state = State::Idle;
    let serial = pal.lock().serial;
    assert_eq!(registry.share(&pal, vec![section(own.start, 0x77_7000)]), Err(Status::SECTION_OVERLAP));
    assert_eq!(registry.share(&pal, vec![section(SHARED, own.pages[0])]), Err(Status::PAGE_TAKEN));
    assert_eq!(registry.share(&pal, vec![section(SHARED, own.pages[0] + PAGE)]), Err(Status::PAGE_TAKEN));
    assert_eq!(registry.share(&pal, vec![section(SHARED, SHARED * 16)]), Ok(()));
    assert!(registry.find_page(SHARED * 16).is_some());
    assert_ne!(pal.lock().serial, serial);
    assert_eq!(pal.lock().layout.translate(SHARED + 5, true), Some(SHARED * 16 + 5));

    // The process has another page there now, then another PAL's, then none.
    let move_to = |page| {
        if let Some(mapping) = fake.mappings.borrow_mut().get_mut(&SHARED) {
            mapping.page = page;
        }
    };
    let serial = pal.lock().serial;
    assert_eq!((registry.refresh(&pal, &fake, &fake), pal.lock().serial), (Ok(()), serial));
    move_to(0x55_5000);
    assert_eq!(registry.refresh(&pal, &fake, &fake), Ok(()));
    assert_ne!(pal.lock().serial, serial);
    assert_eq!(pal.lock().layout.translate(SHARED, true), Some(0x55_5000));
    assert!(registry.find_page(SHARED * 16).is_none() && registry.find_page(0x55_5000).is_some());
    move_to(own.pages[0]);
    assert_eq!(registry.refresh(&pal, &fake, &fake), Err(Failure::BAD_POINTER));
    fake.mappings.borrow_mut().remove(&SHARED);
    assert_eq!(registry.refresh(&pal, &fake, &fake), Err(Failure::BAD_POINTER));
    registry.remove(&pal);
    assert!(registry.find_page(0x55_5000).is_none());
}

/// A PAL that can be given pages, and the registry that it is in.
fn idle(budget: usize) -> (Registry<()>, std::sync::Arc<crate::pal::Pal<()>>) {
    let mut registry = Registry::new(budget);
    let Ok(pal) = registry.insert(KEY, layout(0), ()) else { panic!("there is room") };
    pal.lock().state = State::Idle;
    (registry, pal)
}

/// Sections to share, of one page each unless `pages` says otherwise, side by side from `start` on.
fn side_by_side(start: u64, count: u64, pages: u64) -> Vec<Section> {
    let physical =
        |index| (0..pages).map(move |page| 0x1_0000_0000 + (index * pages + page) * PAGE).collect();
    let section =
        |index| Section { kind: Kind::Shared, start: start + index * pages * PAGE, pages: physical(index) };
    (0..count).map(section).collect()
}

#[test]
fn a_pal_counts_for_its_pages_sections_and_parameters() {
    let mut layout = layout(0);
    layout.sections[1].pages = vec![0x1000, 0x2000, 0x3000];
    layout.parameters = vec![Parameter { kind: ParameterType::Integer, words: 9 }; 5];
    let expected = BYTES_A_PAL + 4 * BYTES_A_SECTION + 5 * BYTES_A_PARAMETER + 6 * BYTES_A_PAGE;
    assert_eq!(heap_bytes(&layout), expected);
    assert_eq!(status(&mut Registry::new(expected - 1), KEY, layout.clone()), Some(Status::OUT_OF_MEMORY));
    let mut registry = Registry::new(expected);
    let Ok(pal) = registry.insert(KEY, layout, ()) else { panic!("it fits to the byte") };
    assert_eq!((registry.budget, registry.len(), registry.is_empty()), (0, 1, false));
    registry.remove(&pal);
    assert_eq!((registry.budget, registry.is_empty()), (expected, true));
}

#[test]
fn what_is_shared_counts_to_the_byte() {
    let own = heap_bytes(&layout(0));
    let bytes = 2 * BYTES_A_SECTION + 6 * BYTES_A_PAGE;
    let more = || side_by_side(SHARED, 2, 3);
    let (mut registry, pal) = idle(own + bytes - 1);
    assert_eq!(registry.share(&pal, more()), Err(Status::OUT_OF_MEMORY));
    let (mut registry, pal) = idle(own + bytes);
    assert_eq!((registry.share(&pal, more()), registry.budget), (Ok(()), 0));
    registry.remove(&pal);
    assert_eq!(registry.budget, own + bytes);
}

#[test]
fn sections_and_pages_may_reach_each_limit_and_not_one_beyond() {
    let (mut registry, pal) = idle(1 << 24);
    let room = CAPACITY as u64 - 4;
    assert_eq!(registry.share(&pal, side_by_side(SHARED, room + 1, 1)), Err(Status::SECTION_COUNT));
    assert_eq!(registry.share(&pal, side_by_side(SHARED, room, 1)), Ok(()));
    let (mut registry, pal) = idle(1 << 24);
    let room = PAGES_LIMIT as u64 - 4;
    assert_eq!(registry.share(&pal, side_by_side(SHARED, 1, room + 1)), Err(Status::SECTION_SIZE));
    assert_eq!(registry.share(&pal, side_by_side(SHARED, 1, room)), Ok(()));
}

#[test]
fn sections_may_touch_and_not_overlap() {
    let (mut registry, pal) = idle(1 << 20);
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
    let before = side_by_side(own - 3 * PAGE, 1, 3);
    let mut behind = side_by_side(end, 2, 1);
    behind.iter_mut().for_each(|section| section.pages[0] += 1 << 32);
    assert_eq!((registry.share(&pal, before), registry.share(&pal, behind)), (Ok(()), Ok(())));
}

#[test]
fn numbers_begin_anew_before_their_limit() {
    let mut registry = Registry::<()>::new(0);
    registry.next_number = PAL_NUMBER_LIMIT - 2;
    let numbers = [(); 4].map(|()| registry.take_number());
    assert_eq!(numbers, [PAL_NUMBER_LIMIT - 2, PAL_NUMBER_LIMIT - 1, 1, 2]);
}
