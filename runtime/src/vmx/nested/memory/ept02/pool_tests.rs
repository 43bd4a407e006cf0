//! The pool's frames.

use super::{Frame, Place, Pool};
use hw::PhysMemory;
use hw::sim::SimMemory;
use x86::address::HostPhysAddr;

const TABLE: Place = Place::Root(0);

fn pool(count: usize) -> (SimMemory, Pool) {
    let frames = Box::leak(vec![Frame::NEW; count].into_boxed_slice());
    (SimMemory::new(0xa5), Pool::new(HostPhysAddr::new(0x10_0000), frames))
}

#[test]
fn every_frame_is_given_once_and_zeroed() {
    let (memory, mut pool) = pool(3);
    let given: Vec<_> = (0..4).filter_map(|_| pool.take(&memory, TABLE)).collect();
    assert_eq!(given.iter().map(|f| f.get()).collect::<Vec<_>>(), [0x10_0000, 0x10_1000, 0x10_2000]);
    assert!(given.iter().all(|f| memory.read_u64(HostPhysAddr::new(f.get() + 4088)) == 0));
    assert_eq!((pool.available(), pool.len()), (0, 3));
    assert!(pool.table_at(2).is_some() && pool.table_at(3).is_none());
}

#[test]
fn a_search_looks_at_no_more_than_was_in_use() {
    let (memory, mut pool) = pool(1000);
    assert_eq!(pool.reach(), 0);
    let given: Vec<_> = (0..3).filter_map(|_| pool.take(&memory, TABLE)).collect();
    pool.drop_table(given[1]);
    pool.release(pool.dropped());
    assert_eq!(pool.take(&memory, TABLE), Some(given[1]));
    assert_eq!(pool.reach(), 3);
    given.iter().for_each(|&frame| pool.drop_table(frame));
    assert_eq!(pool.reach(), 3, "processors may walk them");
    pool.release(pool.dropped());
    assert_eq!(pool.reach(), 0);
}

#[test]
fn a_dropped_frame_keeps_its_content_until_a_later_flush() {
    let (memory, mut pool) = pool(3);
    let given: Vec<_> = (0..3).filter_map(|_| pool.take(&memory, TABLE)).collect();
    memory.write_u64(given[1], 7);
    pool.drop_table(given[1]);
    let early = pool.dropped();
    pool.drop_table(given[0]);
    let late = pool.dropped();
    assert_eq!((pool.waiting(), memory.read_u64(given[1])), (2, 7));
    pool.release(early);
    assert_eq!((pool.waiting(), pool.available()), (1, 1));
    assert_eq!(pool.take(&memory, TABLE), Some(given[1]));
    assert_eq!(pool.take(&memory, TABLE), None);
    pool.release(late);
    assert_eq!(pool.take(&memory, TABLE), Some(given[0]));
    pool.release(late);
    assert_eq!((pool.waiting(), pool.available()), (0, 0));
}

#[test]
fn a_table_knows_its_place_and_its_pages() {
    let (memory, mut pool) = pool(2);
    let root = pool.take(&memory, Place::Root(5)).unwrap_or_default();
    let below = pool.take(&memory, Place::Under { parent: root, slot: 511 }).unwrap_or_default();
    assert_eq!(pool.entry_of(root), None);
    assert_eq!(pool.entry_of(below), Some(HostPhysAddr::new(root.get() + 4088)));
    let table = pool.table(below);
    assert_eq!((table.level, table.root), (3, 5));
    assert!(!table.may_map(0, 1 << 40));
    table.note_pages(0x5000, 0x6000);
    table.note_pages(0x20_0000, 0x40_0000);
    assert!(table.may_map(0x3f_f000, 1 << 40) && table.may_map(0, 0x5001));
    assert!(!table.may_map(0, 0x5000) && !table.may_map(0x40_0000, 0x50_0000));
    table.note_pages(1 << 50, (1 << 50) + 0x1000);
    assert!(table.may_map(1 << 51, 1 << 52));
}

#[test]
#[should_panic(expected = "dropped twice")]
fn a_double_drop_stops() {
    let (memory, mut pool) = pool(1);
    let frame = pool.take(&memory, TABLE).unwrap_or_default();
    pool.drop_table(frame);
    pool.drop_table(frame);
}

#[test]
#[should_panic(expected = "not of the pool")]
fn a_foreign_frame_stops() {
    pool(1).1.drop_table(HostPhysAddr::new(0x10_1000));
}

#[test]
#[should_panic(expected = "is no table")]
fn a_free_frame_is_no_table() {
    pool(1).1.table(HostPhysAddr::new(0x10_0000));
}

#[test]
fn much_that_was_dropped_comes_back_in_parts() {
    let (memory, mut pool) = pool(600);
    let given: Vec<_> = (0..600).filter_map(|_| pool.take(&memory, TABLE)).collect();
    given.iter().for_each(|&frame| pool.drop_table(frame));
    pool.release(pool.dropped());
    assert_eq!((pool.available(), pool.waiting()), (256, 344));
    let again = (0..601).filter_map(|_| pool.take(&memory, TABLE)).count();
    assert_eq!((again, pool.waiting()), (600, 0));
}

#[test]
fn tables_below_a_dropped_one_come_back_with_it() {
    let (memory, mut pool) = pool(5);
    let root = pool.take(&memory, TABLE).unwrap_or_default();
    let mut parent = root;
    for slot in [511, 0, 7] {
        let table = pool.take(&memory, Place::Under { parent, slot }).unwrap_or_default();
        memory.write_u64(HostPhysAddr::new(parent.get() + 8 * u64::from(slot)), table.get() | 7);
        parent = table;
    }
    assert_eq!((pool.table(root).count(), pool.below_roots()), (4, 3));
    let number = usize::from(parent.get() == 0x10_3000) * 3;
    assert!(pool.is_in_use(number));
    pool.drop_table(root);
    assert_eq!((pool.waiting(), pool.available(), pool.below_roots()), (4, 1, 0));
    assert!(pool.table_at(number).is_some() && !pool.is_in_use(number));
    pool.release(pool.dropped());
    assert_eq!((pool.waiting(), pool.available()), (0, 5));
    assert_eq!((0..6).filter_map(|_| pool.take(&memory, TABLE)).count(), 5);
}
