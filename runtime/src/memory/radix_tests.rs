//! Named cases, and every state that another processor could see, against a plain list of pages.

use super::{Radix, translate};
use crate::memory::frame::{Exhausted, Frames};
use crate::memory::plain_format::PlainFormat;
use crate::memory::range::GuestRange;
use core::marker::PhantomData;
use hw::PhysMemory;
use hw::sim::{SimMemory, Write};
use proptest::prelude::*;
use x86::address::HostPhysAddr;
use x86::mtrr::MemoryType;
use x86::paging::{Attributes, Entry, PageSize, Rights, TableFormat};

const POOL: HostPhysAddr = HostPhysAddr::new(0x4000_0000);
const KIB4: u64 = 1 << 12;
const MIB2: u64 = 2 << 20;
const GIB: u64 = 1 << 30;

const RAM: Attributes =
    Attributes { memory_type: MemoryType::WriteBack, rights: Rights::all(), is_decoy: false };
const READ: Attributes =
    Attributes { memory_type: MemoryType::WriteBack, rights: Rights::READ, is_decoy: false };
const DEVICE: Attributes =
    Attributes { memory_type: MemoryType::Uncacheable, rights: Rights::all(), is_decoy: false };

struct Fixture {
    memory: SimMemory,
    frames: Frames,
    largest: PageSize,
    tables: usize,
    root: HostPhysAddr,
}

impl Fixture {
    fn new(largest: PageSize, frames: u64) -> Self {
        let mut pool = Frames::new();
        assert_eq!(pool.add(POOL, frames * KIB4), Ok(()));
        let memory = SimMemory::new(0xff);
        let mut machine = Self { memory, frames: pool, largest, tables: 0, root: POOL };
        machine.root = machine.radix().make_root().unwrap_or_default();
        machine.memory.clear_history();
        machine
    }

    fn radix(&mut self) -> Radix<'_, SimMemory, PlainFormat> {
        Radix {
            memory: &self.memory,
            frames: &mut self.frames,
            largest: self.largest,
            decoy: HostPhysAddr::new(0x7_f000),
            tables: &mut self.tables,
            is_stale: false,
            format: PhantomData,
        }
    }

    fn fill(&mut self, range: GuestRange, attributes: Attributes) -> Result<(), Exhausted> {
        let root = self.root;
        self.radix().fill(root, range, attributes, range)
    }

    /// Updates, and says whether processors must flush.
    fn update(&mut self, range: GuestRange, target: Option<Attributes>) -> bool {
        let root = self.root;
        let mut radix = self.radix();
        radix.update(root, range, target);
        radix.is_stale
    }

    fn at(&self, address: u64) -> Option<(PageSize, Attributes)> {
        seen(&self.memory, self.root, address)
    }
}

/// What a processor finds; identity is checked on the way.
fn seen(memory: &SimMemory, root: HostPhysAddr, address: u64) -> Option<(PageSize, Attributes)> {
    let (page, size, attributes) = translate::<PlainFormat>(memory, root, address)?;
    assert_eq!(page.get(), address & !(size.bytes() - 1), "not identity");
    Some((size, attributes))
}

fn range(start: u64, end: u64) -> GuestRange {
    GuestRange::between(start, end)
}

#[test]
fn pages_are_as_large_as_range_and_processor_allow() {
    let mut machine = Fixture::new(PageSize::Size1G, 16);
    assert_eq!(machine.fill(range(GIB - MIB2 - KIB4, 3 * GIB + MIB2), RAM), Ok(()));
    let sizes = [GIB - MIB2 - KIB4, GIB - 1, GIB, 2 * GIB, 3 * GIB].map(|a| machine.at(a).map(|m| m.0));
    let expected = [PageSize::Size4K, PageSize::Size2M, PageSize::Size1G, PageSize::Size1G, PageSize::Size2M];
    assert_eq!(sizes, expected.map(Some));
    assert_eq!((machine.at(GIB - MIB2 - KIB4 - 1), machine.at(3 * GIB + MIB2)), (None, None));

    let mut small = Fixture::new(PageSize::Size2M, 16);
    assert_eq!(small.fill(range(0, GIB), RAM), Ok(()));
    assert_eq!((small.at(5), small.tables), (Some((PageSize::Size2M, RAM)), 3));
}

#[test]
fn a_changed_page_splits_what_holds_it_and_joins_when_restored() {
    let mut machine = Fixture::new(PageSize::Size1G, 16);
    assert_eq!(machine.fill(range(0, 4 * GIB), RAM), Ok(()));
    assert_eq!(machine.tables, 2);
    assert!(machine.update(range(GIB + KIB4, GIB + 2 * KIB4), Some(READ)));
    assert_eq!(machine.at(GIB), Some((PageSize::Size4K, RAM)));
    assert_eq!(machine.at(GIB + KIB4), Some((PageSize::Size4K, READ)));
    assert_eq!(machine.at(GIB + MIB2), Some((PageSize::Size2M, RAM)));
    assert_eq!(machine.at(2 * GIB), Some((PageSize::Size1G, RAM)));
    assert_eq!(machine.tables, 4);
    assert!(machine.update(range(GIB, 2 * GIB), Some(RAM)));
    assert_eq!((machine.at(GIB + KIB4), machine.tables), (Some((PageSize::Size1G, RAM)), 2));
}

#[test]
fn only_changes_that_take_something_away_need_a_flush() {
    let mut machine = Fixture::new(PageSize::Size2M, 16);
    assert!(!machine.update(range(0, MIB2), Some(READ)));
    assert_eq!(machine.at(0), None);
    assert_eq!(machine.fill(range(0, MIB2), READ), Ok(()));
    assert!(!machine.update(range(0, MIB2), Some(READ)));
    assert!(!machine.update(range(0, MIB2), Some(RAM)));
    assert!(machine.update(range(0, MIB2), Some(DEVICE)));
    assert!(machine.update(range(0, MIB2), None));
    assert!(!machine.update(range(0, MIB2), None));
}

#[test]
fn a_new_table_of_pages_is_filled_over_the_neighbours_too() {
    let mut machine = Fixture::new(PageSize::Size2M, 16);
    let root = machine.root;
    let around = range(KIB4, 8 * GIB);
    let page = range(5 * GIB + MIB2, 5 * GIB + 2 * MIB2);
    assert_eq!(machine.radix().fill(root, page, RAM, around), Ok(()));
    assert_eq!(machine.at(5 * GIB).map(|m| m.0), Some(PageSize::Size2M));
    assert_eq!(machine.at(6 * GIB - 1).map(|m| m.0), Some(PageSize::Size2M));
    assert_eq!((machine.at(5 * GIB - 1), machine.at(6 * GIB), machine.tables), (None, None, 3));
    // The low table has pages of 4 KiB in its first 2 MiB, which is only partly alike.
    assert_eq!(machine.radix().fill(root, range(2 * KIB4, 3 * KIB4), RAM, around), Ok(()));
    assert_eq!((machine.at(0), machine.at(MIB2)), (None, None));
    assert_eq!(machine.at(KIB4).map(|m| m.0), Some(PageSize::Size4K));
    assert_eq!(machine.at(MIB2 - 1).map(|m| m.0), Some(PageSize::Size4K));

    // Neighbours that would need tables of their own are left to their own misses.
    let mut ragged = Fixture::new(PageSize::Size2M, 16);
    let root = ragged.root;
    assert_eq!(ragged.radix().fill(root, range(MIB2, 2 * MIB2), RAM, around), Ok(()));
    assert_eq!((ragged.at(MIB2 - 1), ragged.tables), (None, 3));
    assert_eq!(ragged.at(GIB - 1).map(|m| m.0), Some(PageSize::Size2M));
}

#[test]
fn an_update_without_a_change_splits_and_fills_nothing() {
    let mut machine = Fixture::new(PageSize::Size2M, 16);
    assert_eq!(machine.fill(range(MIB2, 2 * MIB2), RAM), Ok(()));
    machine.memory.clear_history();
    assert!(!machine.update(range(0, MIB2 + KIB4), Some(RAM)));
    assert_eq!((machine.at(0), machine.at(MIB2).map(|m| m.0)), (None, Some(PageSize::Size2M)));
    assert!(machine.memory.history().is_empty());
}

#[test]
fn without_a_frame_a_split_becomes_a_miss_and_a_fill_says_so() {
    let mut machine = Fixture::new(PageSize::Size1G, 2);
    assert_eq!(machine.fill(range(0, GIB), RAM), Ok(()));
    assert!(machine.update(range(0, KIB4), Some(READ)));
    assert_eq!((machine.at(0), machine.at(MIB2)), (None, None));
    assert_eq!(machine.fill(range(0, KIB4), READ), Err(Exhausted));
}

#[test]
fn dropped_tables_wait_and_removal_gives_all_back() {
    let mut machine = Fixture::new(PageSize::Size2M, 64);
    assert_eq!(machine.fill(range(KIB4, 3 * GIB + KIB4), RAM), Ok(()));
    let used = machine.tables;
    assert_eq!((used, machine.frames.available()), (8, 56));
    let root = machine.root;
    machine.update(range(0, 512 * GIB), None);
    assert_eq!((machine.tables, machine.frames.available()), (1, 56));
    machine.radix().remove(root);
    assert_eq!(machine.tables, 0);
    machine.frames.release();
    assert_eq!(machine.frames.available(), 64);
}

/// One change, in pages of the window.
#[derive(Clone, Debug)]
struct Change {
    start: u64,
    end: u64,
    target: Option<Attributes>,
    is_fill: bool,
}

/// The window: the last 4 MiB below 1 GiB and the first 4 MiB above, so that blocks of all sizes meet in it.
const WINDOW: u64 = GIB - 2 * MIB2;
const WINDOW_PAGES: u64 = 4 * MIB2 / KIB4;

fn any_change() -> impl Strategy<Value = Change> {
    let edge = prop_oneof![0..=WINDOW_PAGES, (0..=8_u64).prop_map(|block| block * 256)];
    let target = prop::sample::select(vec![None, Some(RAM), Some(READ), Some(DEVICE)]);
    (edge.clone(), edge, target, any::<bool>()).prop_map(|(a, b, target, is_fill)| Change {
        start: WINDOW + a.min(b) * KIB4,
        end: WINDOW + (a.max(b) + 1) * KIB4,
        target,
        is_fill,
    })
}

/// Addresses to look at: a page or two around each edge of the change and of the blocks.
fn samples(change: &Change) -> Vec<u64> {
    let edges = [change.start, change.end, WINDOW, WINDOW + MIB2, GIB, GIB + MIB2, GIB + 2 * MIB2];
    let mut all: Vec<u64> = edges.iter().flat_map(|&e| [e - KIB4, e, e + KIB4, e + 37 * KIB4]).collect();
    all.push(0);
    all.push(2 * GIB);
    all
}

fn assert_table_is_complete(past: &SimMemory, write: &Write) {
    let Write::Word { address, new, .. } = write else { return };
    if new >> 63 == 0 {
        return;
    }
    // Of the level only the lowest matters to the format, and that one links nothing.
    let Entry::Table(table) = PlainFormat::decode(*new, 4) else { panic!("{address:?} got {new:#x}") };
    for entry in 0..512 {
        let word = past.read_u64(HostPhysAddr::new(table.get() + 8 * entry));
        assert!(word == 0 || word >> 62 == 1 || word >> 62 == 2, "{table:?} was linked before it was made");
    }
}

fn apply(machine: &mut Fixture, change: &Change) -> Result<(), TestCaseError> {
    let pages = range(change.start, change.end);
    let samples = samples(change);
    let before: Vec<_> = samples.iter().map(|&a| machine.at(a).map(|m| m.1)).collect();
    machine.memory.clear_history();
    let is_fill = change.is_fill && change.target.is_some();
    let is_stale = match change.target {
        Some(attributes) if is_fill => {
            // A fill finds nothing else: the policy changed before, and tables with it.
            machine.update(pages, None);
            machine.memory.clear_history();
            prop_assert_eq!(machine.fill(pages, attributes), Ok(()));
            true
        }
        target => machine.update(pages, target),
    };
    let root = machine.root;
    machine.memory.replay(|past, write| {
        assert_table_is_complete(past, write);
        for (&address, &was) in samples.iter().zip(&before) {
            let now = seen(past, root, address).map(|m| m.1);
            let is_inside = pages.start() <= address && address < pages.end();
            assert!(
                now == was || is_inside && (now == change.target || is_fill && now.is_none()),
                "{address:#x} was {was:?} and is {now:?} within {change:?}"
            );
        }
    });
    for (&address, &was) in samples.iter().zip(&before) {
        let now = machine.at(address).map(|m| m.1);
        let is_inside = pages.start() <= address && address < pages.end();
        prop_assert!(!is_inside || now == change.target || now.is_none() && !is_fill);
        prop_assert!(!is_inside || was.is_none() || now == change.target);
        let is_taken = was.is_some_and(|w| {
            now.is_none_or(|n| n.memory_type != w.memory_type || !n.rights.contains(w.rights))
        });
        prop_assert!(!is_taken || is_stale);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn no_processor_ever_sees_a_change_half_done(
        largest in prop::sample::select(PageSize::DESCENDING.to_vec()),
        changes in prop::collection::vec(any_change(), 1..12),
    ) {
        let mut machine = Fixture::new(largest, 256);
        if largest != PageSize::Size4K {
            prop_assert_eq!(machine.fill(range(0, 2 * GIB), RAM), Ok(()));
        }
        for change in &changes {
            apply(&mut machine, change)?;
            machine.frames.release();
        }
        let root = machine.root;
        machine.radix().remove(root);
        machine.frames.release();
        prop_assert_eq!((machine.tables, machine.frames.available()), (0, 256));
    }
}
