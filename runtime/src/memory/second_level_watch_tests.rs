//! Watches on pages: a write is served, told to all, and ends the watch.

use super::*;

#[test]
fn a_write_to_a_watched_page_is_served_and_ends_the_watch() {
    let mut memory = started(PageSize::Size1G, 512);
    let page = GuestPhysAddr::new(5 * MIB);
    assert_eq!(memory.violation(CPU, page, Rights::READ), Resolution::Filled);
    let (watch, flush) = memory.watch(page).unwrap();
    assert!(flush.is_needed());
    memory.flushed(flush);
    assert_eq!(memory.take_changes().iter().collect::<Vec<_>>(), [(CPU, pages(5 * MIB, PAGE_SIZE))]);
    assert_eq!(memory.watch_of(page), Some(watch));
    assert_eq!(memory.rights(CPU, page), Rights::READ | Rights::EXECUTE);
    assert_eq!(memory.rights(CPU, GuestPhysAddr::new(5 * MIB + PAGE_SIZE)), Rights::all());

    assert_eq!(memory.violation(CPU, page, Rights::READ), Resolution::Filled);
    assert_eq!(memory.watch(page), Ok((watch, Flush::NONE)));
    assert!(matches!(memory.violation(CPU, page, Rights::WRITE), Resolution::Noticed(_)));
    assert_eq!((memory.watch_of(page), memory.rights(CPU, page)), (None, Rights::all()));
    let (_, size, attributes) = memory.mapped(CPU, page).unwrap();
    assert_eq!((size, attributes.rights), (PageSize::Size2M, Rights::all()));
}

#[test]
fn a_watch_gives_no_right_and_takes_none_but_writes() {
    let mut memory = started(PageSize::Size4K, 512);
    let page = GuestPhysAddr::new(0x7000);
    assert!(
        memory.set_rights(CPU, pages(0x7000, PAGE_SIZE), Rights::READ).is_ok() && memory.watch(page).is_ok()
    );
    let results = [0, 1].map(|_| memory.violation(CPU, page, Rights::WRITE));
    assert!(matches!(results, [Resolution::Noticed(_), Resolution::Protected(Rights::READ)]));
    let hidden = memory.watch(GuestPhysAddr::new(REGION.base));
    assert_eq!(hidden.err(), Some(ProtectError::HypervisorMemory));
    assert_eq!(memory.watch(GuestPhysAddr::new(1 << 39)).err(), Some(ProtectError::OutOfReach));
}

#[test]
fn a_write_that_ends_a_watch_is_told_to_all_before_it_is_done() {
    let mut memory = started(PageSize::Size1G, 512);
    let page = GuestPhysAddr::new(5 * MIB);
    let (_, flush) = memory.watch(page).unwrap();
    memory.flushed(flush);
    let noticed = memory.violation(CPU, page, Rights::READ | Rights::WRITE);
    assert!(matches!(&noticed, Resolution::Noticed(flush) if flush.is_needed()), "{noticed:?}");
    assert_eq!(memory.violation(CPU, page, Rights::READ | Rights::WRITE), Resolution::Filled);
}

#[test]
fn a_page_that_a_processor_writes_unseen_is_not_watched() {
    let mut memory = started(PageSize::Size2M, 512);
    let page = GuestPhysAddr::new(5 * MIB);
    let (watch, _) = memory.watch(page).unwrap();
    let inside = GuestPhysAddr::new(5 * MIB + 0x340);
    memory.begin_unseen_writes(inside);
    assert_eq!(memory.watch_of(page), None);
    assert_eq!(memory.watch(page).err(), Some(ProtectError::Lent));
    assert!(memory.watch(GuestPhysAddr::new(5 * MIB + PAGE_SIZE)).is_ok());
    memory.end_unseen_writes(inside);
    let (again, _) = memory.watch(page).unwrap();
    assert_ne!(again, watch);
}
