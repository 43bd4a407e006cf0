//! What drops cost, in words of tables that are read: it does not grow with what is dropped.

use super::access::Outcome;
use super::cache::Named;
use super::fixture::{Fixture, READ, RWX, WB, eptp};
use crate::memory::range::GuestRange;
use crate::memory::views::View;
use hw::sim::SimMemory;
use proptest::prelude::*;
use x86::address::GuestPhysAddr;
use x86::paging::{ENTRIES, PAGE_SIZE, PageSize, Rights};
use x86::vmx::ept::EptPointer;

const GIB: u64 = 1 << 30;
const LOW: u64 = 0x30_0000;
const HIGH: u64 = 0x70_0000;
const EPTP: EptPointer = EptPointer::new(x86::address::HostPhysAddr::new(0x1000));
/// Words that a drop may read.
const LIMIT: u64 = 10 * ENTRIES as u64;

/// L2 with `blocks` blocks of 2 MiB from 1 GiB on, each by a table of its own, with a low and a high page by turns.
fn full(memory: &SimMemory, blocks: u64) -> Fixture<'_> {
    let fixture = Fixture::new(memory, 1000, 4, PageSize::Size1G);
    for (page, gpa) in [(LOW, GIB), (HIGH, GIB + PAGE_SIZE)] {
        fixture.map(EPTP, gpa, page | WB | RWX, PageSize::Size4K);
    }
    for block in 0..blocks {
        let gpa = GIB + (block << 21);
        fixture.l1.put_u64(0x2000 + 8 * (gpa >> 30), 0x3000 | RWX);
        fixture.l1.put_u64(0x3000 + 8 * (gpa >> 21 & 0x1ff), 0x4000 | RWX);
    }
    fixture.enter(0, EPTP);
    for block in 0..blocks {
        assert_eq!(fixture.access(0, EPTP, GIB + (block << 21), READ), Outcome::Mapped);
    }
    fixture
}

fn kept(fixture: &Fixture<'_>, blocks: u64) -> usize {
    (0..blocks).filter(|block| fixture.cached(0, GIB + (block << 21)).is_some()).count()
}

/// Returns the words that `act` has read.
fn words(memory: &SimMemory, act: impl FnOnce()) -> u64 {
    memory.clear_history();
    act();
    memory.word_reads()
}

fn protect(memory: &SimMemory, fixture: &Fixture<'_>, page: u64, rights: Rights) -> u64 {
    let range = GuestRange::page(GuestPhysAddr::new(page));
    words(memory, || fixture.protect(View::SHARED, range, rights))
}

#[test]
fn a_change_of_a_page_that_no_table_maps_keeps_all() {
    let memory = SimMemory::new(0);
    let fixture = full(&memory, 300);
    let words = protect(&memory, &fixture, (LOW + HIGH) / 2, Rights::READ);
    assert!(words < 100, "{words} words, as the tables of the shared view have few");
    assert_eq!(kept(&fixture, 300), 300);
}

#[test]
fn a_change_of_a_page_in_few_tables_drops_that_alone() {
    let memory = SimMemory::new(0);
    let fixture = full(&memory, 3);
    assert!(protect(&memory, &fixture, HIGH, Rights::READ) < LIMIT);
    assert_eq!(kept(&fixture, 3), 3);
    assert_eq!(fixture.cached(0, GIB + PAGE_SIZE), None);
}

#[test]
fn a_change_of_a_page_in_many_tables_drops_all_at_once() {
    let memory = SimMemory::new(0);
    let fixture = full(&memory, 300);
    let words = protect(&memory, &fixture, HIGH, Rights::READ);
    assert!(words < LIMIT, "{words} words");
    assert_eq!(kept(&fixture, 300), 0);
    assert_eq!(fixture.access(0, EPTP, GIB, READ), Outcome::Mapped);
    assert_eq!(kept(&fixture, 300), 1);
}

#[test]
fn invept_of_sparse_tables_reads_one_table_at_most() {
    let memory = SimMemory::new(0);
    let fixture = Fixture::new(&memory, 1000, 4, PageSize::Size1G);
    fixture.map(EPTP, 0, LOW | WB | RWX, PageSize::Size4K);
    fixture.enter(0, EPTP);
    for region in 0..400 {
        fixture.l1.put_u64(0x2000 + 8 * region, 0x3000 | RWX);
        assert_eq!(fixture.access(0, EPTP, region << 30, READ), Outcome::Mapped);
    }
    let used = fixture.cache.borrow().frames_in_use();
    let words = words(&memory, || fixture.cache.borrow_mut().invalidate(Named::Single(EPTP), |_| {}));
    assert!(words <= ENTRIES as u64, "{words} words");
    assert_eq!((fixture.cached(0, 0), fixture.cache.borrow().frames_in_use()), (None, used));
    fixture.reclaim();
    assert_eq!(fixture.cache.borrow().frames_in_use(), 1, "all that was below comes back");
}

#[test]
fn a_dry_pool_is_served_in_few_steps() {
    let memory = SimMemory::new(0);
    let fixture = full(&memory, 500);
    fixture.map(eptp(0x9000), 0, LOW | WB | RWX, PageSize::Size4K);
    fixture.enter(1, eptp(0x9000));
    fixture.enter(0, eptp(0xf000));
    let words = words(&memory, || fixture.reclaim());
    assert!(words <= ENTRIES as u64, "{words} words");
}

#[test]
fn the_last_cpu_to_leave_vmx_operation_leaves_no_tables() {
    let memory = SimMemory::new(0);
    let fixture = full(&memory, 300);
    fixture.enter(1, EPTP);
    fixture.cache.borrow_mut().leave(0);
    assert!(fixture.cached(1, GIB).is_some());
    let words = words(&memory, || fixture.cache.borrow_mut().leave(1));
    assert_eq!((words, fixture.cached(1, GIB)), (0, None));
    fixture.reclaim();
    assert_eq!(fixture.cache.borrow().frames_in_use(), 0);
    // Who has no root leaves none either.
    fixture.cache.borrow_mut().leave(1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn every_frame_comes_back_however_tables_are_dropped(
        events in prop::collection::vec((0_u8..6, 0_u64..64, 0_u64..3), 1..200),
    ) {
        let memory = SimMemory::new(0xff);
        let fixture = Fixture::new(&memory, 24, 4, PageSize::Size1G);
        let pointers = [EPTP, eptp(0x9000), eptp(0x1_1000)];
        for pointer in pointers {
            fixture.map(pointer, 0, LOW | WB | RWX, PageSize::Size4K);
            let root = pointer.root().get();
            (0..64).for_each(|region| fixture.l1.put_u64(root + 0x1000 + 8 * region, (root + 0x2000) | RWX));
        }
        for (event, region, number) in events {
            let cpu = usize::try_from(number).unwrap_or(0) % 2;
            let pointer = pointers[usize::try_from(number).unwrap_or(0)];
            match event {
                0 => fixture.cache.borrow_mut().invalidate(Named::Single(pointer), |_| {}),
                1 => fixture.reclaim(),
                2 => fixture.cache.borrow_mut().leave(cpu),
                _ => {
                    fixture.enter(cpu, pointer);
                    let mut tries = 0;
                    while fixture.access(cpu, pointer, region << 30, READ) == Outcome::Exhausted {
                        fixture.reclaim();
                        fixture.enter(cpu, pointer);
                        tries += 1;
                        prop_assert!(tries < 3);
                    }
                    prop_assert_eq!(fixture.cached(cpu, region << 30).map(|found| found.0), Some(LOW));
                }
            }
        }
        (0..2).for_each(|cpu| fixture.cache.borrow_mut().leave(cpu));
        fixture.reclaim();
        prop_assert_eq!(fixture.cache.borrow().frames_in_use(), 0);
    }
}
