//! Named cases over the neutral format.

use super::{ProtectError, RESERVE, Resolution, SecondLevel};
use crate::memory::flush::Flush;
use crate::memory::frame::Exhausted;
use crate::memory::plain_format::PlainFormat;
use crate::memory::policy::MemoryFacts;
use crate::memory::protect::Protection;
use crate::memory::range::GuestRange;
use crate::memory::views::View;
use hw::sim::SimMemory;
use platform::handoff::PhysRange;
use platform::mtrr_map::Mtrrs;
use x86::address::{GuestPhysAddr, HostPhysAddr};
use x86::mtrr::{MemoryType, MtrrCapabilities, MtrrDefaultType, VariableMtrr};
use x86::paging::{PAGE_SIZE, PageSize, Rights};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const REGION: PhysRange = PhysRange { base: GIB + 16 * MIB, length: 8 * MIB };
const CPU: View = View::SHARED;
const CPU_VIEWS: [View; 2] = [View::SHARED, View::of_cpu(0)];

#[path = "second_level_guard_tests.rs"]
mod guards;
#[path = "second_level_model_tests.rs"]
mod model;
#[path = "second_level_pointer_tests.rs"]
mod pointers;
#[path = "second_level_watch_tests.rs"]
mod watches;

type Memory = SecondLevel<SimMemory, PlainFormat>;

/// Write-back but for a hole of devices from 3 GiB to 4 GiB and the video memory, on 39 address bits.
fn mtrrs() -> Mtrrs {
    let mut mtrrs = Mtrrs::disabled(39);
    mtrrs.capabilities = MtrrCapabilities(0x508);
    mtrrs.default_type = MtrrDefaultType(0xc06);
    mtrrs.fixed = [0x0606_0606_0606_0606; 11];
    mtrrs.fixed[2] = 0;
    mtrrs.variable[0] = VariableMtrr { base: 3 * GIB, mask: 0x7f_c000_0800 };
    mtrrs
}

fn machine(largest_page: PageSize) -> MemoryFacts {
    MemoryFacts {
        region: REGION,
        memory_map: &[],
        physical_address_bits: 39,
        largest_page,
        has_execute_only: false,
        mtrrs: mtrrs(),
    }
}

fn started(largest_page: PageSize, frames: u64) -> Memory {
    let mut memory = SecondLevel::new(SimMemory::new(0xff));
    assert_eq!(memory.frames().add(HostPhysAddr::new(REGION.base), frames * PAGE_SIZE), Ok(()));
    assert_eq!(memory.start(&machine(largest_page)), Ok(()));
    memory
}

fn pages(start: u64, bytes: u64) -> GuestRange {
    GuestRange::between(start, start + bytes)
}

fn gpa(address: u64) -> GuestPhysAddr {
    GuestPhysAddr::new(address)
}

fn size_at(memory: &Memory, address: u64) -> Option<PageSize> {
    memory.mapped(CPU, gpa(address)).map(|m| m.1)
}

fn read(memory: &mut Memory, view: View, address: u64) -> Resolution {
    memory.violation(view, gpa(address), Rights::READ)
}

#[test]
fn eager_filling_maps_all_but_the_hypervisor_with_few_tables() {
    let mut memory = started(PageSize::Size2M, 128);
    assert_eq!(memory.fill_below(gpa(4 * GIB)), Ok(()));
    for (address, size) in [
        (0, Some(PageSize::Size4K)),
        (MIB, Some(PageSize::Size4K)),
        (2 * MIB, Some(PageSize::Size2M)),
        (REGION.base - 1, Some(PageSize::Size2M)),
        (REGION.base, None),
        (REGION.base + REGION.length - 1, None),
        (REGION.base + REGION.length, Some(PageSize::Size2M)),
        (4 * GIB - 1, Some(PageSize::Size2M)),
        (4 * GIB, None),
    ] {
        assert_eq!(size_at(&memory, address), size, "{address:#x}");
    }
    // Root, one table for 512 GiB, one a GiB, and the pages of the first 2 MiB.
    assert_eq!(memory.table_pages(), 7);
    let type_at = |address| memory.mapped(CPU, gpa(address)).map(|m| m.2.memory_type);
    assert_eq!(type_at(0xa_0000), Some(MemoryType::Uncacheable));
    assert_eq!(type_at(0xc_0000), Some(MemoryType::WriteBack));
    assert_eq!(type_at(3 * GIB), Some(MemoryType::Uncacheable));

    let mut large = started(PageSize::Size1G, 128);
    assert_eq!(large.fill_below(gpa(4 * GIB)), Ok(()));
    assert_eq!(size_at(&large, 2 * GIB), Some(PageSize::Size1G));
    assert_eq!(large.table_pages(), 5);
}

#[test]
fn the_guest_never_gets_hidden_or_unreachable_memory() {
    let mut memory = started(PageSize::Size1G, 128);
    for address in [REGION.base, REGION.base + REGION.length - 1, 1 << 39, 1 << 48, 1 << 51, u64::MAX] {
        assert_eq!(read(&mut memory, CPU, address), Resolution::Hidden, "{address:#x}");
        assert_eq!(memory.rights(CPU, gpa(address)), Rights::empty());
    }
    for range in [
        pages(REGION.base, PAGE_SIZE),
        pages(REGION.base - PAGE_SIZE, 2 * PAGE_SIZE),
        pages(REGION.base + REGION.length - PAGE_SIZE, 2 * PAGE_SIZE),
        pages(0, 4 * GIB),
    ] {
        assert_eq!(memory.set_rights(CPU, range, Rights::all()), Err(ProtectError::HypervisorMemory));
        assert_eq!(memory.reset_rights(CPU, range), Err(ProtectError::HypervisorMemory));
    }
    assert_eq!(
        memory.set_rights(CPU, pages(1 << 39, PAGE_SIZE), Rights::READ),
        Err(ProtectError::OutOfReach)
    );
}

#[test]
fn protections_hold_from_the_next_access_until_they_are_reset() {
    let mut memory = started(PageSize::Size1G, 128);
    assert_eq!(memory.fill_below(gpa(4 * GIB)), Ok(()));
    let page = 2 * GIB + 5 * PAGE_SIZE;
    let flush = memory.set_rights(CPU, pages(page, PAGE_SIZE), Rights::READ);
    assert!(flush.as_ref().is_ok_and(Flush::is_needed));
    assert_eq!(memory.mapped(CPU, gpa(page)).map(|m| m.2.rights), Some(Rights::READ));
    assert_eq!(memory.violation(CPU, gpa(page), Rights::WRITE), Resolution::Protected(Rights::READ));
    assert_eq!(read(&mut memory, CPU, page), Resolution::Filled);
    assert_eq!(size_at(&memory, page + PAGE_SIZE), Some(PageSize::Size4K));
    assert_eq!(size_at(&memory, 3 * GIB - 1), Some(PageSize::Size2M));

    assert!(memory.reset_rights(CPU, pages(page, PAGE_SIZE)).is_ok_and(|f| f.is_needed()));
    assert_eq!(size_at(&memory, page), Some(PageSize::Size1G));
    assert_eq!(memory.violation(CPU, gpa(page), Rights::WRITE), Resolution::Filled);
    assert_eq!(memory.table_pages(), 5);
}

#[test]
fn rights_that_no_entry_can_say_are_refused() {
    let mut memory = started(PageSize::Size2M, 128);
    let page = pages(GIB, PAGE_SIZE);
    for rights in [Rights::WRITE, Rights::WRITE | Rights::EXECUTE, Rights::EXECUTE] {
        assert_eq!(memory.set_rights(CPU, page, rights), Err(ProtectError::Unsupported));
    }
    let mut able = SecondLevel::<_, PlainFormat>::new(SimMemory::new(0));
    assert_eq!(able.frames().add(HostPhysAddr::new(REGION.base), 100 * PAGE_SIZE), Ok(()));
    assert_eq!(able.start(&MemoryFacts { has_execute_only: true, ..machine(PageSize::Size2M) }), Ok(()));
    assert_eq!(able.set_rights(CPU, page, Rights::EXECUTE), Ok(Flush::NONE));
    assert_eq!(able.set_rights(CPU, page, Rights::WRITE), Err(ProtectError::Unsupported));
}

#[test]
fn a_view_says_its_own_and_else_what_the_shared_one_says() {
    let mut memory = started(PageSize::Size2M, 128);
    let (own, page) = (View::of_cpu(1), pages(GIB, PAGE_SIZE));
    assert_eq!(memory.set_rights(own, page, Rights::READ), Err(ProtectError::NoView));
    let root = memory.open_view(own);
    assert!(root.is_ok() && root.ok() != memory.root(CPU));
    assert_eq!(memory.set_rights(own, page, Rights::READ), Ok(Flush::NONE));
    assert_eq!(memory.set_rights(CPU, pages(GIB, 2 * PAGE_SIZE), Rights::empty()), Ok(Flush::NONE));
    assert_eq!(read(&mut memory, own, GIB), Resolution::Filled);
    assert_eq!(read(&mut memory, CPU, GIB), Resolution::Protected(Rights::empty()));
    let nothing = memory.violation(CPU, gpa(GIB), Rights::empty());
    assert_eq!(nothing, Resolution::Protected(Rights::empty()));
    assert_eq!(read(&mut memory, own, GIB + PAGE_SIZE), Resolution::Protected(Rights::empty()));
    assert!(memory.reset_rights(own, page).is_ok_and(|f| f.is_needed()));
    assert_eq!(read(&mut memory, own, GIB), Resolution::Protected(Rights::empty()));

    let used = memory.table_pages();
    assert!(memory.close_view(own).is_needed());
    assert!(memory.table_pages() < used);
    assert_eq!((memory.root(own), read(&mut memory, own, 0)), (None, Resolution::Hidden));
    assert!(!memory.close_view(CPU).is_needed());

    assert!(memory.open_view(own).is_ok());
    assert_eq!(memory.rights(own, gpa(2 * GIB)), Rights::all());
    assert!(memory.set_rights(own, pages(2 * GIB, PAGE_SIZE), Rights::READ).is_ok());
    assert!(memory.close_view(own).is_needed() && memory.open_view(own).is_ok());
    assert_eq!(memory.rights(own, gpa(2 * GIB)), Rights::all());
}

#[test]
fn an_mtrr_change_reaches_only_the_ranges_that_changed() {
    let mut memory = started(PageSize::Size2M, 128);
    assert_eq!(memory.fill_below(gpa(4 * GIB)), Ok(()));
    assert!(!memory.adopt_mtrrs(&mtrrs()).is_needed());
    let mut new = mtrrs();
    new.variable[1] = VariableMtrr { base: 2 * GIB + 1, mask: 0x7f_ff00_0800 };
    memory.memory.clear_history();
    assert!(memory.adopt_mtrrs(&new).is_needed());
    // One entry for each 2 MiB of the 16 MiB.
    assert_eq!(memory.memory.history().len(), 8);
    let mapped = memory.mapped(CPU, gpa(2 * GIB + 16 * MIB - 1)).map(|m| m.2.memory_type);
    // Write-combining over the default type.
    assert_eq!(mapped, Some(MemoryType::WriteCombining));
    assert!(memory.adopt_mtrrs(&mtrrs()).is_needed());
}

#[test]
fn an_mtrr_change_drops_many_tables_in_few_steps() {
    let mut memory = started(PageSize::Size2M, 700);
    assert_eq!(memory.fill_below(gpa(4 * GIB)), Ok(()));
    for at in (0..500).map(|region| 2 * GIB + region * 2 * MIB) {
        assert!(memory.set_rights(CPU, pages(at, PAGE_SIZE), Rights::READ).is_ok());
    }
    let tables = memory.table_pages();
    let mut new = mtrrs();
    new.variable[1] = VariableMtrr { base: 2 * GIB + 1, mask: 0x7f_c000_0800 };
    memory.memory.clear_history();
    let flush = memory.adopt_mtrrs(&new);
    assert!(tables > 500 && flush.is_needed());
    assert!(memory.memory.word_reads() <= 512 && memory.memory.history().len() <= 512);
    assert_eq!((memory.table_pages(), memory.mapped(CPU, gpa(2 * GIB))), (1, None));
    memory.flushed(flush);
    assert_eq!(read(&mut memory, CPU, 2 * GIB + PAGE_SIZE), Resolution::Filled);
}

#[test]
fn garbage_mtrrs_cost_a_bounded_number_of_writes() {
    let mut memory = started(PageSize::Size2M, 128);
    assert_eq!(memory.fill_below(gpa(4 * GIB)), Ok(()));
    let mut garbage = mtrrs();
    garbage.variable[1] = VariableMtrr { base: 0, mask: 0x1800 };
    memory.memory.clear_history();
    assert!(memory.adopt_mtrrs(&garbage).is_needed());
    let far = 2 * GIB + 100 * MIB;
    assert_eq!(read(&mut memory, CPU, far), Resolution::Filled);
    assert!(memory.set_rights(CPU, pages(2 * GIB, GIB), Rights::READ).is_ok_and(|f| f.is_needed()));
    assert_eq!(memory.mapped(CPU, gpa(far)), None);
    assert_eq!(read(&mut memory, CPU, 2 * GIB + PAGE_SIZE), Resolution::Filled);
    assert_eq!(size_at(&memory, 2 * GIB + PAGE_SIZE), Some(PageSize::Size4K));
    assert!(memory.memory.history().len() < 5000);
}

#[test]
fn a_dry_pool_is_served_by_dropping_tables() {
    let mut memory = started(PageSize::Size2M, RESERVE as u64);
    let mut flushes = 0;
    for address in (4 * GIB..200 * GIB).step_by(1 << 30) {
        let resolution = read(&mut memory, CPU, address);
        if let Resolution::Reclaimed(flush) = resolution {
            assert!(flush.is_needed());
            memory.flushed(flush);
            flushes += 1;
            assert_eq!(read(&mut memory, CPU, address), Resolution::Filled);
        }
        assert!(size_at(&memory, address).is_some());
    }
    assert_eq!(flushes, 3);
}

#[test]
fn frames_come_back_only_after_the_flush_that_covers_them() {
    let mut memory = started(PageSize::Size2M, 128);
    assert_eq!(memory.fill_below(gpa(2 * GIB)), Ok(()));
    let first = memory.drop_tables();
    let free = memory.frames().available();
    assert_eq!(read(&mut memory, CPU, GIB), Resolution::Filled);
    let second = memory.drop_tables();
    memory.flushed(first);
    assert!(memory.frames().available() < free);
    memory.flushed(second);
    assert_eq!((memory.frames().available(), memory.table_pages()), (126, 1));
}

#[test]
fn too_few_frames_are_refused_at_the_start() {
    let mut memory: Memory = SecondLevel::new(SimMemory::new(0));
    assert_eq!(memory.frames().add(HostPhysAddr::new(0), (RESERVE as u64 - 1) * PAGE_SIZE), Ok(()));
    assert_eq!(memory.start(&machine(PageSize::Size2M)), Err(Exhausted));
}

#[test]
fn more_than_a_tebibyte_is_mapped_where_it_is_touched() {
    let mut memory = SecondLevel::<_, PlainFormat>::new(SimMemory::new(0xff));
    assert_eq!(memory.frames().add(HostPhysAddr::new(REGION.base), 128 * PAGE_SIZE), Ok(()));
    let mtrrs = Mtrrs { physical_address_bits: 52, ..mtrrs() };
    let machine = MemoryFacts { physical_address_bits: 52, mtrrs, ..machine(PageSize::Size1G) };
    assert_eq!(memory.start(&machine), Ok(()));
    for address in [1 << 40, 3 << 40, (1 << 48) - 1] {
        assert_eq!(read(&mut memory, CPU, address), Resolution::Filled);
        assert_eq!(size_at(&memory, address), Some(PageSize::Size1G));
    }
    assert_eq!(read(&mut memory, CPU, 1 << 48), Resolution::Hidden);
}

#[test]
fn a_decoy_is_read_only_and_one_frame_stands_in_for_all() {
    let mut memory = started(PageSize::Size1G, 512);
    assert_eq!(memory.fill_below(gpa(4 * GIB)), Ok(()));
    let (one, two) = (pages(64 * MIB, 4 * PAGE_SIZE), pages(2 * GIB, 2 * MIB));
    for range in [one, two] {
        assert!(memory.cover(range, Some(Protection::Decoy)).is_ok_and(|flush| flush.is_needed()));
        for access in [Rights::WRITE, Rights::EXECUTE] {
            let protected = Resolution::Protected(Rights::READ);
            assert_eq!(memory.violation(CPU, gpa(range.start()), access), protected);
        }
        assert_eq!(memory.violation(CPU, gpa(range.end() - PAGE_SIZE), Rights::READ), Resolution::Filled);
    }
    let frame = |memory: &Memory, at| memory.mapped(CPU, gpa(at)).map(|m| (m.0, m.1, m.2.rights));
    assert_eq!(memory.violation(CPU, gpa(one.start()), Rights::READ), Resolution::Filled);
    let decoy = memory.policy().decoy();
    assert_eq!(frame(&memory, one.start()), Some((decoy, PageSize::Size4K, Rights::READ)));
    assert_eq!(frame(&memory, two.end() - PAGE_SIZE), Some((decoy, PageSize::Size4K, Rights::READ)));
    let is_decoy = |at| memory.attributes(CPU, gpa(at)).map(|a| a.is_decoy);
    assert_eq!((is_decoy(one.start()), is_decoy(one.end())), (Some(true), Some(false)));

    assert!(memory.reset_rights(CPU, one).is_ok_and(|flush| flush.is_needed()));
    assert_eq!(memory.violation(CPU, gpa(one.start()), Rights::WRITE), Resolution::Filled);
    let page = HostPhysAddr::new(one.start());
    assert_eq!(frame(&memory, one.start()).map(|m| (m.0, m.2)), Some((page, Rights::all())));
}

#[test]
fn what_is_covered_keeps_its_small_page_when_it_is_open_again() {
    let mut memory = started(PageSize::Size2M, 512);
    assert_eq!(memory.fill_below(gpa(GIB)), Ok(()));
    let page = pages(64 * MIB, PAGE_SIZE);
    assert!(memory.cover(page, Some(Protection::Decoy)).is_ok_and(|flush| flush.is_needed()));
    let tables = memory.table_pages();
    assert!(memory.cover(page, None).is_ok_and(|flush| flush.is_needed()));
    let mapped = memory.mapped(CPU, gpa(page.start())).map(|m| (m.0, m.1, m.2.rights));
    assert_eq!(mapped, Some((HostPhysAddr::new(page.start()), PageSize::Size4K, Rights::all())));
    assert_eq!(memory.table_pages(), tables);
    assert!(memory.reset_rights(CPU, page).is_ok_and(|flush| flush.is_needed()));
    assert_eq!((size_at(&memory, page.start()), memory.table_pages()), (Some(PageSize::Size2M), tables - 1));
}

/// Who asks for what another CPU has just asked for waits for the flush that is not over, and nobody after it.
#[test]
fn a_flush_in_flight_is_waited_for_by_all_that_rely_on_it() {
    let mut memory = started(PageSize::Size1G, 512);
    let page = GuestPhysAddr::new(5 * MIB);
    assert_eq!(memory.violation(CPU, page, Rights::READ), Resolution::Filled);
    // The first CPU's flush is not carried out yet: a third may still write the page.
    let (watch, first) = memory.watch(page).unwrap();
    assert!(first.is_needed());
    let (again, second) = memory.watch(page).unwrap();
    assert!(second.is_needed() && again == watch);
    memory.flushed(first);
    assert_eq!(memory.watch(page), Ok((watch, Flush::NONE)));
    memory.flushed(second);
}

#[test]
fn a_protection_that_is_there_already_may_not_hold_yet() {
    let mut memory = started(PageSize::Size1G, 512);
    let range = pages(5 * MIB, PAGE_SIZE);
    assert_eq!(memory.violation(CPU, GuestPhysAddr::new(range.start()), Rights::READ), Resolution::Filled);
    let first = memory.set_rights(CPU, range, Rights::empty()).unwrap();
    let second = memory.set_rights(CPU, range, Rights::empty()).unwrap();
    assert!(first.is_needed() && second.is_needed());
    // What came later covers what came before.
    memory.flushed(second);
    assert_eq!(memory.set_rights(CPU, range, Rights::empty()), Ok(Flush::NONE));
    memory.flushed(first);
}

/// Tables that were dropped are empty, and yet processors may use what was in them.
#[test]
fn covering_empty_tables_waits_for_flushes_in_flight() {
    let mut memory = started(PageSize::Size1G, 512);
    let range = pages(5 * MIB, PAGE_SIZE);
    assert_eq!(memory.violation(CPU, GuestPhysAddr::new(range.start()), Rights::READ), Resolution::Filled);
    let dropped = memory.drop_tables();
    let covered = memory.cover(range, Some(Protection::Decoy)).unwrap();
    assert!(dropped.is_needed() && covered.is_needed());
}
