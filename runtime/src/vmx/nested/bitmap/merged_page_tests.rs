//! Fake memory on both sides, and a watcher over a list.

use super::{Kind, MergedPage, PATIENCE, Pages, Watcher};
use crate::memory::guest::fake::FakeMemory;
use crate::memory::watch::Watch;
use core::cell::{Cell, RefCell};
use hw::PhysMemory;
use hw::sim::SimMemory;
use proptest::prelude::*;
use std::collections::BTreeMap;
use x86::address::{GuestPhysAddr, HostPhysAddr};

pub(crate) const OWN: HostPhysAddr = HostPhysAddr::new(0x10_0000);
pub(crate) const FRAME: HostPhysAddr = HostPhysAddr::new(0x20_0000);
pub(crate) const WANTED: GuestPhysAddr = GuestPhysAddr::new(0x2000);

/// A machine whose watches are a map.
#[derive(Debug)]
pub(crate) struct Fake {
    pub(crate) memory: SimMemory,
    pub(crate) guest: FakeMemory,
    watches: RefCell<BTreeMap<u64, Watch>>,
    writes: Cell<u64>,
    next: Cell<u64>,
    can_watch: bool,
}

impl Watcher for Fake {
    fn writes(&self) -> u64 {
        self.writes.get()
    }

    fn watch(&self, page: GuestPhysAddr) -> Option<Watch> {
        self.next.set(self.next.get() + 1);
        let new = Watch::numbered(self.next.get());
        self.can_watch.then(|| *self.watches.borrow_mut().entry(page.get()).or_insert(new))
    }

    fn watch_of(&self, page: GuestPhysAddr) -> Option<Watch> {
        self.watches.borrow().get(&page.get()).copied()
    }
}

impl Fake {
    pub(crate) fn new() -> Self {
        let fake = Self {
            memory: SimMemory::new(0),
            guest: FakeMemory::new(0x8000),
            watches: RefCell::default(),
            writes: Cell::new(0),
            next: Cell::new(0),
            can_watch: true,
        };
        fake.memory.write(OWN, &[0; 0x2000]);
        fake
    }

    pub(crate) fn pages(&self) -> Pages<'_, SimMemory, FakeMemory, Self> {
        Pages { memory: &self.memory, guest: &self.guest, watcher: self }
    }

    /// A byte of L1's is written, and that is noticed.
    pub(crate) fn write(&self, address: u64, byte: u8) {
        self.guest.put(address, &[byte]);
        if self.watches.borrow_mut().remove(&(address & !0xfff)).is_some() {
            self.writes.set(self.writes.get() + 1);
        }
    }

    pub(crate) fn byte(&self, address: u64) -> u8 {
        let mut byte = [0];
        self.memory.read(HostPhysAddr::new(address), &mut byte);
        byte[0]
    }

    /// Whether every bit of the frame's bytes is set.
    fn has_ones(&self, mut offsets: core::ops::Range<u64>) -> bool {
        offsets.all(|offset| self.byte(FRAME.get() + offset) == 0xff)
    }

    /// Number of copies into the hypervisor's memory since the last call.
    fn copies(&self) -> usize {
        let copies = self.memory.history().len();
        self.memory.clear_history();
        copies
    }
}

#[test]
fn a_frame_stays_until_its_page_is_written() {
    let fake = Fake::new();
    let mut merged = MergedPage::new(FRAME, Kind::Io);
    fake.copies();
    merged.refresh(&fake.pages(), OWN, WANTED);
    assert_eq!(fake.copies(), 8);
    merged.refresh(&fake.pages(), OWN, WANTED);
    assert_eq!(fake.copies(), 0);
    fake.write(WANTED.get() + 0xfff, 0x80);
    merged.refresh(&fake.pages(), OWN, WANTED);
    assert_eq!((fake.copies(), fake.byte(FRAME.get() + 0xfff)), (8, 0x80));
}

#[test]
fn a_write_to_another_page_costs_a_look() {
    let fake = Fake::new();
    let mut merged =
        [FRAME.get(), 0x30_0000].map(|frame| MergedPage::new(HostPhysAddr::new(frame), Kind::Io));
    merged[0].refresh(&fake.pages(), OWN, WANTED);
    merged[1].refresh(&fake.pages(), OWN, GuestPhysAddr::new(0x3000));
    fake.copies();
    fake.write(0x3000, 1);
    merged[0].refresh(&fake.pages(), OWN, WANTED);
    assert_eq!(fake.copies(), 0);
}

#[test]
fn a_page_that_is_watched_anew_is_not_taken_for_unwritten() {
    let fake = Fake::new();
    let mut merged = MergedPage::new(FRAME, Kind::Io);
    merged.refresh(&fake.pages(), OWN, WANTED);
    fake.write(WANTED.get(), 2);
    assert!(fake.watch(WANTED).is_some());
    merged.refresh(&fake.pages(), OWN, WANTED);
    assert_eq!(fake.byte(FRAME.get()), 2);
}

#[test]
fn a_page_written_again_and_again_has_every_access_exit() {
    let fake = Fake::new();
    let mut merged = MergedPage::new(FRAME, Kind::Io);
    for count in 0..=PATIENCE {
        merged.refresh(&fake.pages(), OWN, WANTED);
        fake.write(WANTED.get(), count);
    }
    for count in 0..3 {
        fake.write(WANTED.get(), count);
        merged.refresh(&fake.pages(), OWN, WANTED);
        assert!(fake.has_ones(0..0x1000));
    }
    // Another page is another matter.
    merged.refresh(&fake.pages(), OWN, GuestPhysAddr::new(0x3000));
    fake.copies();
    merged.refresh(&fake.pages(), OWN, GuestPhysAddr::new(0x3000));
    assert_eq!(fake.copies(), 0);
}

#[test]
fn where_nothing_can_be_watched_every_access_exits() {
    let fake = Fake { can_watch: false, ..Fake::new() };
    let mut merged = MergedPage::new(FRAME, Kind::Io);
    merged.refresh(&fake.pages(), OWN, WANTED);
    assert!(fake.has_ones(0..0x1000));
}

#[test]
fn an_x2apic_that_may_be_virtualized_keeps_its_bits() {
    let fake = Fake { can_watch: false, ..Fake::new() };
    fake.guest.put(WANTED.get() + 0x900, &[0x5a]);
    MergedPage::new(FRAME, Kind::Msr).refresh(&fake.pages(), OWN, WANTED);
    assert!(fake.has_ones(0..0x100) && fake.has_ones(0x120..0x900) && fake.has_ones(0x920..0x1000));
    let seen = [0x100, 0x11f, 0x900, 0x901, 0x91f].map(|offset| fake.byte(FRAME.get() + offset));
    assert_eq!(seen, [0, 0, 0x5a, 0, 0]);
}

/// The watch ends before the write is done: what the page is to say is not in it yet.
#[test]
fn a_page_about_to_be_written_has_every_access_exit() {
    let fake = Fake::new();
    let mut merged = MergedPage::new(FRAME, Kind::Io);
    merged.refresh(&fake.pages(), OWN, WANTED);
    merged.follow(&fake.pages(), OWN, WANTED);
    assert!(!fake.has_ones(0..1), "nothing was written");
    fake.write(0x3000, 1);
    merged.follow(&fake.pages(), OWN, WANTED);
    assert!(!fake.has_ones(0..1), "another page was written");
    fake.write(WANTED.get(), 0);
    merged.follow(&fake.pages(), OWN, WANTED);
    assert!(fake.has_ones(0..0x1000));
    fake.guest.put(WANTED.get(), &[4]);
    merged.refresh(&fake.pages(), OWN, WANTED);
    assert_eq!((fake.byte(FRAME.get()), fake.byte(FRAME.get() + 1)), (4, 0));
    fake.copies();
    merged.refresh(&fake.pages(), OWN, WANTED);
    assert_eq!(fake.copies(), 0, "it is watched again");
}

#[test]
fn memory_that_is_not_l1s_wants_every_exit() {
    let mut fake = Fake::new();
    fake.guest.hidden = 0x2000..0x3000;
    let mut merged = MergedPage::new(FRAME, Kind::Io);
    merged.refresh(&fake.pages(), OWN, WANTED);
    assert!((0..0x1000).all(|offset| fake.byte(FRAME.get() + offset) == 0xff));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Whatever is written when, a frame says what either side wants at that moment.
    #[test]
    fn a_frame_is_the_or_of_both_at_every_entry(
        l0 in prop::collection::vec((0_u64..0x1000, any::<u8>()), 0..8),
        steps in prop::collection::vec((0_u64..0x2000, any::<u8>(), any::<bool>()), 1..24),
    ) {
        let fake = Fake::new();
        for &(offset, byte) in &l0 {
            fake.memory.write(HostPhysAddr::new(OWN.get() + offset), &[byte]);
        }
        let mut merged = MergedPage::new(FRAME, Kind::Io);
        for &(offset, byte, is_other) in &steps {
            fake.write(WANTED.get() + offset, byte);
            let page = WANTED.get() + if is_other { 0x1000 } else { 0 };
            merged.refresh(&fake.pages(), OWN, GuestPhysAddr::new(page));
            for offset in 0..0x1000 {
                let wanted = fake.guest.get::<1>(page + offset)[0];
                let expected = wanted | fake.byte(OWN.get() + offset);
                let is_patient = fake.watch_of(GuestPhysAddr::new(page)).is_some();
                let expected = if is_patient { expected } else { 0xff };
                prop_assert_eq!(fake.byte(FRAME.get() + offset), expected);
            }
        }
    }
}
