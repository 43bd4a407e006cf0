//! Tables against a list of what was asked for, as a made-up unit walks them.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::capability::{Capability, ExtendedCapability};
use crate::sim::{Model, Sim, SimMemory};
use x86::address::GIB;

const FRAMES: HostPhysAddr = HostPhysAddr::new(0x100_0000);
const DOMAIN: DomainId = DomainId(1);
const LARGE: u64 = 2 << 20;
/// Of a bus and a function that nothing else is said of.
const DEVICE: u16 = 0xfe1f;

/// What was asked for, the last of it last.
type Asked = Vec<(u64, u64, DeviceAccess)>;

fn shape(model: Model, end: u64) -> Shape {
    let capability = Capability::from_bits_retain(model.capability());
    let extended = ExtendedCapability::from_bits_retain(model.extended());
    Shape::common([(capability, extended)].into_iter(), end).unwrap()
}

fn tables<'a>(
    sim: &'a Sim,
    states: &'a mut [FrameState],
    end: u64,
) -> Result<DeviceTables<'a, &'a SimMemory>, TablesError> {
    DeviceTables::new(&sim.memory, Frames::new(FRAMES, states), shape(sim.model, end), DOMAIN, end)
}

/// A unit that goes by the tables.
fn unit<'a>(sim: &'a Sim, tables: &DeviceTables<'_, &SimMemory>) -> Unit<&'a Sim, &'a SimMemory> {
    let mut unit = Unit::new(sim, &sim.memory).unwrap().with_patience(8);
    unit.take_over().unwrap();
    if sim.model.has_queue {
        unit.enable_queue(HostPhysAddr::new(0x8000), HostPhysAddr::new(0x9000)).unwrap();
    }
    unit.set_root_table(tables.root_table()).unwrap();
    unit.enable_translation().unwrap();
    unit
}

/// Memory that a model's tables cover: where all pages are small, little.
fn end_of(model: Model) -> u64 {
    if model.large_pages == 0 { 5 * LARGE + 0x3000 } else { 3 * GIB + 3 * LARGE + 0x5000 }
}

fn is_open(asked: &Asked, end: u64, address: u64) -> bool {
    let last = asked.iter().rev().find(|(start, end, _)| (*start..*end).contains(&address));
    address < end && last.is_none_or(|(_, _, access)| *access == DeviceAccess::Open)
}

/// Addresses at and beside all borders that there are.
fn samples(asked: &Asked, end: u64) -> Vec<u64> {
    let borders = asked.iter().flat_map(|&(start, end, _)| [start, end]).chain([0, end]);
    let beside = borders.flat_map(|at| [at.wrapping_sub(1), at, at + 0xfff, at ^ LARGE, at ^ GIB]);
    beside.filter(|&at| at < end + GIB).collect()
}

/// Where words of memory take `address`, for tables that map it to itself or to nothing.
fn walk(words: &BTreeMap<u64, u64>, root: u64, levels: u8, address: u64) -> bool {
    let mut table = root;
    for level in (1..=levels).rev() {
        let entry = words[&(table + (address >> (12 + 9 * (level - 1)) & 0x1ff) * 8)];
        if entry & 3 == 0 {
            return false;
        }
        let at = entry & 0xffff_ffff_f000;
        if level == 1 || entry & 0x80 != 0 {
            assert_eq!(at, address >> (12 + 9 * (level - 1)) << (12 + 9 * (level - 1)), "mapped elsewhere");
            return true;
        }
        table = at;
    }
    unreachable!()
}

fn accesses() -> impl Strategy<Value = DeviceAccess> {
    prop_oneof![Just(DeviceAccess::Closed), Just(DeviceAccess::Open)]
}

/// A range near borders of pages of all sizes, as two numbers of pages.
fn ranges() -> impl Strategy<Value = (u64, u64)> {
    let near = || {
        let unit = prop_oneof![Just(1_u64), Just(512), Just(512 * 512)];
        (unit, 0..4_u64, 0..3_u64).prop_map(|(unit, times, beside)| (unit * times + beside).saturating_sub(1))
    };
    (near(), near()).prop_map(|(one, other)| (one.min(other), one.max(other) + 1))
}

fn models() -> impl Strategy<Value = Model> {
    prop::sample::select(Model::ALL.to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn devices_reach_all_memory_but_the_holes(
        model in models(), asks in vec((ranges(), accesses()), 1..10),
    ) {
        let (sim, end) = (Sim::new(model), end_of(model));
        let mut states = [FrameState::Free; 40];
        let mut tables = tables(&sim, &mut states, end).unwrap();
        let at_first = tables.pages();
        let mut units = [unit(&sim, &tables)];
        let mut asked = Asked::new();
        for ((first, last), access) in asks {
            let (start, stop) = (first * PAGE_SIZE, (last * PAGE_SIZE).min(end));
            if start >= stop {
                continue;
            }
            asked.push((start, stop, access));
            // What devices did before is kept.
            for address in samples(&asked, end) {
                let _ = sim.dma(DEVICE, address, true);
            }
            let stale = tables.set(start, stop, access).unwrap();
            tables.follow(&mut units, stale).unwrap();
            for address in samples(&asked, end) {
                let reached = sim.dma(DEVICE, address, true);
                prop_assert!(reached.is_err() || reached == Ok(address));
                prop_assert_eq!(reached.is_ok(), is_open(&asked, end, address), "{:#x} of {:x?}", address, asked);
            }
        }
        let stale = tables.set(0, end, DeviceAccess::Open).unwrap();
        tables.follow(&mut units, stale).unwrap();
        prop_assert_eq!(tables.pages(), at_first, "pages are left behind");
    }

    #[test]
    fn every_write_of_an_entry_leaves_the_rest_as_it_was(
        model in models(), asks in vec((ranges(), accesses()), 1..5),
    ) {
        let (sim, end) = (Sim::new(model), end_of(model));
        let mut states = [FrameState::Free; 40];
        let mut tables = tables(&sim, &mut states, end).unwrap();
        let (root, levels) = (tables.second_level.get(), tables.shape.levels);
        let mut words: BTreeMap<_, _> = sim.memory.history.take().into_iter().collect();
        let mut asked = Asked::new();
        for ((first, last), access) in asks {
            let (start, stop) = (first * PAGE_SIZE, (last * PAGE_SIZE).min(end));
            if start >= stop {
                continue;
            }
            let stale = tables.set(start, stop, access).unwrap();
            tables.follow::<&Sim, &SimMemory>(&mut [], stale).unwrap();
            let before = asked.clone();
            asked.push((start, stop, access));
            for (address, value) in sim.memory.history.take() {
                words.insert(address, value);
                for at in samples(&asked, end).into_iter().filter(|at| *at < 1 << 39) {
                    let (was, is) = (is_open(&before, end, at), is_open(&asked, end, at));
                    let reached = walk(&words, root, levels, at);
                    prop_assert!(reached == was || reached == is, "{at:#x} on the way");
                }
            }
        }
    }
}

#[test]
fn tables_take_64_kib_of_16_gib_and_what_their_borders_take() {
    let end = 16 * GIB;
    let of = |large_pages| {
        let sim = Sim::new(Model { large_pages, ..Model::MODERN });
        let mut states = [FrameState::Free; 64];
        let mut tables = tables(&sim, &mut states, end).unwrap();
        let empty = tables.pages();
        // A region of 8 MiB, a unit's registers, and a PAL's page.
        for (start, stop) in [(GIB - 4 * LARGE, GIB), (0xfed9_0000, 0xfed9_1000), (0x1234_5000, 0x1234_6000)]
        {
            let _ = tables.set(start, stop, DeviceAccess::Closed).unwrap();
        }
        (empty, tables.pages())
    };
    // Root table, context table, and the two upper levels, to begin with.
    assert_eq!(of(3), (4, 4 + 2 + 2));
    assert_eq!(of(1), (4 + 16, 4 + 16 + 2));
    assert!((of(3).1 - 4) as u64 * PAGE_SIZE <= 64 << 10);
    assert_eq!(of(1).0 as u64 * PAGE_SIZE, (64 << 10) + 4 * PAGE_SIZE);
}

#[test]
fn new_tables_take_the_pages_that_their_form_says() {
    for (model, end) in [(Model::MODERN, GIB), (Model::MODERN, 600 * GIB), (Model::OLD, GIB)] {
        let sim = Sim::new(model);
        let mut states = vec![FrameState::Free; 1024];
        let made = tables(&sim, &mut states, end).unwrap().pages() as u64;
        assert_eq!(made, shape(model, end).pages(end), "{end:#x}");
    }
}

#[test]
fn a_range_that_there_are_no_pages_for_is_left_as_it_was() {
    for spare in 0..4 {
        let sim = Sim::new(Model::MODERN);
        let mut states = vec![FrameState::Free; 4 + spare];
        let mut tables = tables(&sim, &mut states, 16 * GIB).unwrap();
        sim.memory.history.take();
        // Two borders inside a large page, each in another one of 1 GiB.
        let set = tables.set(GIB - PAGE_SIZE, GIB + PAGE_SIZE, DeviceAccess::Closed);
        assert_eq!(set, Err(TablesError::Exhausted), "{spare}");
        assert!(sim.memory.history.take().is_empty());
    }
    // One border inside a large page, which takes two tables, before or behind one that takes none.
    for range in [(GIB - PAGE_SIZE, GIB), (GIB, GIB + PAGE_SIZE)] {
        for (spare, set) in [(0, false), (1, false), (2, true)] {
            let sim = Sim::new(Model::MODERN);
            let mut states = vec![FrameState::Free; 4 + spare];
            let mut tables = tables(&sim, &mut states, 16 * GIB).unwrap();
            sim.memory.history.take();
            let is_set = tables.set(range.0, range.1, DeviceAccess::Closed).is_ok();
            assert_eq!((is_set, !sim.memory.history.take().is_empty()), (set, set), "{range:x?}, {spare}");
        }
    }
    let sim = Sim::new(Model::MODERN);
    let mut states = [FrameState::Free; 8];
    let mut exact = tables(&sim, &mut states, 16 * GIB).unwrap();
    assert!(exact.set(GIB - PAGE_SIZE, GIB + PAGE_SIZE, DeviceAccess::Closed).is_ok());
    let mut states = [FrameState::Free; 3];
    assert_eq!(tables(&sim, &mut states, 16 * GIB).err(), Some(TablesError::Exhausted));
}

#[test]
fn what_is_as_asked_for_takes_no_page() {
    let sim = Sim::new(Model::MODERN);
    let mut states = [FrameState::Free; 4];
    let mut tables = tables(&sim, &mut states, 16 * GIB).unwrap();
    let _ = tables.set(GIB, 2 * GIB, DeviceAccess::Closed).unwrap();
    sim.memory.history.take();
    for (block, access, other) in
        [(GIB, DeviceAccess::Closed, DeviceAccess::Open), (2 * GIB, DeviceAccess::Open, DeviceAccess::Closed)]
    {
        let (start, end) = (block + PAGE_SIZE, block + 3 * PAGE_SIZE);
        assert!(tables.set(start, end, access).is_ok(), "{access:?}");
        assert_eq!(tables.set(start, end, other), Err(TablesError::Exhausted), "{other:?}");
    }
    assert!(sim.memory.history.take().is_empty());
}

#[test]
fn units_forget_the_least_block_around_a_range() {
    let sim = Sim::new(Model::MODERN);
    let mut states = [FrameState::Free; 32];
    let mut tables = tables(&sim, &mut states, 16 * GIB).unwrap();
    let pages = |address, mask| Translations::Pages { domain: DOMAIN, address, mask };
    let domain = Translations::Domain(DOMAIN);
    for (start, end, translations) in [
        (0x5000, 0x6000, pages(0x5000, 0)),
        (0x4000, 0x8000, pages(0x4000, 2)),
        (0x5000, 0x7000, pages(0x4000, 2)),
        (0x7000, 0x9000, pages(0, 4)),
        (GIB + LARGE, GIB + 2 * LARGE, pages(GIB + LARGE, 9)),
        (GIB + PAGE_SIZE, GIB + LARGE, pages(GIB, 9)),
        // More than there is a block for, and few, but on both sides of such a block's border.
        (GIB + LARGE, GIB + 2 * LARGE + PAGE_SIZE, domain),
        (GIB + LARGE - PAGE_SIZE, GIB + LARGE + PAGE_SIZE, domain),
    ] {
        let stale = tables.set(start, end, DeviceAccess::Closed);
        assert_eq!(stale, Ok(Stale { translations }), "{start:#x}-{end:#x}");
    }
}

#[test]
fn a_page_of_the_last_level_is_not_marked_as_a_large_one() {
    assert_eq!([1, 2, 3].map(|level| leaf(GIB, level)), [GIB | 3, GIB | 0x83, GIB | 0x83]);
}

#[test]
fn ranges_that_are_none_are_refused() {
    let sim = Sim::new(Model::MODERN);
    let mut states = [FrameState::Free; 8];
    let mut all = tables(&sim, &mut states, GIB).unwrap();
    let wrong = [(0, 0), (0x2000, 0x1000), (1, 0x1000), (0, 0x1001), (0x800, 0x1800), (0, GIB + PAGE_SIZE)];
    for (start, end) in wrong {
        assert_eq!(all.set(start, end, DeviceAccess::Closed), Err(TablesError::Range), "{start:#x}-{end:#x}");
    }
    let mut states = [FrameState::Free; 8];
    assert_eq!(tables(&sim, &mut states, GIB + 1).err(), Some(TablesError::Range));
}

#[test]
fn a_table_that_units_may_walk_is_nobodys_before_they_follow() {
    let sim = Sim::new(Model::MODERN);
    let mut states = [FrameState::Free; 8];
    let mut tables = tables(&sim, &mut states, 16 * GIB).unwrap();
    let mut units = [unit(&sim, &tables)];
    let set =
        |tables: &mut DeviceTables<'_, _>, page, access| tables.set(page, page + PAGE_SIZE, access).unwrap();
    let closed = set(&mut tables, 5 * GIB, DeviceAccess::Closed);
    tables.follow(&mut units, closed).unwrap();
    // The unit keeps the tables on the way to it.
    assert_eq!(sim.dma(DEVICE, 5 * GIB + PAGE_SIZE, true), Ok(5 * GIB + PAGE_SIZE));
    let elsewhere = set(&mut tables, 9 * GIB, DeviceAccess::Closed);
    let folded = set(&mut tables, 5 * GIB, DeviceAccess::Open);
    assert_eq!(tables.frames.count(FrameState::Retired), 2);
    assert_eq!(tables.set(GIB, GIB + PAGE_SIZE, DeviceAccess::Closed), Err(TablesError::Exhausted));
    // They are for others behind the first time that units follow, whichever change that is about.
    tables.follow(&mut units, elsewhere).unwrap();
    assert_eq!(tables.frames.count(FrameState::Retired), 0);
    let again = set(&mut tables, 7 * GIB, DeviceAccess::Closed);
    assert_eq!(sim.dma(DEVICE, 5 * GIB + 2 * PAGE_SIZE, true), Ok(5 * GIB + 2 * PAGE_SIZE));
    tables.follow(&mut units, folded).unwrap();
    tables.follow(&mut units, again).unwrap();
    assert_eq!([5, 7, 9].map(|gib| sim.dma(DEVICE, gib * GIB, true).is_ok()), [true, false, false]);
}
