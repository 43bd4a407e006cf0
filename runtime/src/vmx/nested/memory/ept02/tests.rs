//! Named cases over fake memory.

use super::access::Outcome;
use super::cache::Named;
use super::fixture::{FETCH, Fixture, READ, REGION, RWX, WB, WRITE, eptp};
use crate::memory::protect::Protection;
use crate::memory::range::GuestRange;
use crate::memory::views::View;
use crate::vmx::nested::memory::ept12::PageModificationLog;
use hw::sim::SimMemory;
use x86::address::{GuestPhysAddr, HostPhysAddr};
use x86::paging::PAGE_SIZE;
use x86::paging::{PageSize, Rights};
use x86::vmx::ept::EptPointer;
use x86::vmx::ept_entry::EptEntry;

fn page_range(address: u64) -> GuestRange {
    GuestRange::page(GuestPhysAddr::new(address))
}

const EPTP: EptPointer = EptPointer::new(HostPhysAddr::new(0x1000));
const GPA: u64 = 3 << 30 | 0x40_5678;

fn fixture(memory: &SimMemory) -> Fixture<'_> {
    let fixture = Fixture::new(memory, 64, 4, PageSize::Size1G);
    fixture.map(EPTP, GPA, 0x30_5000 | WB | RWX, PageSize::Size4K);
    fixture.enter(0, EPTP);
    fixture
}

fn violation(qualification: u64) -> Outcome {
    Outcome::Violation { qualification }
}

#[test]
fn a_page_that_both_allow_is_mapped_with_l1s_memory_type() {
    let memory = SimMemory::new(0);
    let fixture = fixture(&memory);
    assert_eq!(fixture.cached(0, GPA), None);
    assert_eq!(fixture.access(0, EPTP, GPA, READ), Outcome::Mapped);
    let (at, entry) = fixture.cached(0, GPA).unwrap();
    assert_eq!((at, entry.rights(), entry.0 >> 3 & 0xf), (0x30_5678, Rights::all(), 6));
    // Write-combining and "ignore PAT" come from L1 as they are.
    fixture.map(EPTP, GPA, 0x30_5000 | 0x48 | RWX, PageSize::Size4K);
    fixture.cache.borrow_mut().invalidate(Named::Single(EPTP), |_| {});
    assert_eq!(fixture.access(0, EPTP, GPA, READ), Outcome::Mapped);
    assert_eq!(fixture.cached(0, GPA).map(|found| found.1.0 >> 3 & 0xf), Some(9));
}

#[test]
fn pages_are_as_large_as_both_allow() {
    let memory = SimMemory::new(0);
    let fixture = fixture(&memory);
    let large = |size: PageSize| size.bytes() | 0x80 | WB | RWX;
    let size_at = |gpa| fixture.cached(0, gpa).map(|found| found.1.is_leaf(2) && found.1.0 & 0x80 != 0);
    fixture.map(EPTP, 0, large(PageSize::Size1G), PageSize::Size1G);
    assert_eq!(fixture.access(0, EPTP, 0x1234, WRITE), Outcome::Mapped);
    assert_eq!(fixture.cached(0, 0x3fff_f000).map(|found| found.0), Some(0x7fff_f000));
    // In the first GiB of L1's memory lies the hypervisor's region, which no large page may cover.
    fixture.map(EPTP, 1 << 30, 0x80 | WB | RWX, PageSize::Size1G);
    let gpa = 1 << 30 | (REGION.base - 4096);
    assert_eq!(fixture.access(0, EPTP, gpa, READ), Outcome::Mapped);
    assert_eq!(
        (fixture.cached(0, gpa).map(|found| found.0), size_at(gpa)),
        (Some(REGION.base - 4096), Some(true))
    );
    assert_eq!(fixture.cached(0, gpa + 4096), None);
    // A page that a hypapp protects makes its neighbours small.
    fixture.protect(View::SHARED, page_range(0x20_3000), Rights::READ);
    fixture.map(EPTP, 2 << 30, 0x20_0000 | 0x80 | WB | RWX, PageSize::Size2M);
    assert_eq!(fixture.access(0, EPTP, 2 << 30 | 0x4000, READ), Outcome::Mapped);
    assert_eq!(size_at(2 << 30 | 0x4000), Some(false));
    assert_eq!(fixture.access(0, EPTP, 2 << 30 | 0x3000, READ), Outcome::Mapped);
    assert_eq!(fixture.cached(0, 2 << 30 | 0x3000).map(|found| found.1.rights()), Some(Rights::READ));
}

#[test]
fn large_pages_are_split_for_a_processor_without() {
    let memory = SimMemory::new(0);
    let fixture = Fixture::new(&memory, 64, 4, PageSize::Size4K);
    fixture.map(EPTP, 0, 0x80 | WB | RWX, PageSize::Size1G);
    fixture.enter(0, EPTP);
    assert_eq!(fixture.access(0, EPTP, 0x5000, READ), Outcome::Mapped);
    assert!(fixture.cached(0, 0x5000).is_some() && fixture.cached(0, 0x4000).is_none());
}

#[test]
fn a_violation_of_l1s_tables_is_l1s_with_the_access_s_facts() {
    let memory = SimMemory::new(0);
    let fixture = fixture(&memory);
    fixture.map(EPTP, GPA, 0x30_5000 | WB | 5, PageSize::Size4K);
    // NMI unblocking and the bits of the access stay, those of rights come from L1's tables.
    assert_eq!(fixture.access(0, EPTP, GPA, 0x1e78 | WRITE), violation(0x1028 | WRITE));
    assert_eq!(fixture.access(0, EPTP, GPA, WRITE), violation(0x28 | WRITE));
    assert_eq!(fixture.access(0, EPTP, GPA & !0x1000, READ), violation(READ));
    assert_eq!(fixture.access(0, EPTP, GPA, FETCH), Outcome::Mapped);
    fixture.map(EPTP, GPA, 0x30_5000 | WB | 2, PageSize::Size4K);
    assert_eq!(fixture.access(0, EPTP, GPA, READ), Outcome::Misconfiguration);
}

#[test]
fn what_the_hypervisor_forbids_is_not_l1s_to_see() {
    let memory = SimMemory::new(0);
    let fixture = fixture(&memory);
    fixture.map(EPTP, GPA, REGION.base | WB | RWX, PageSize::Size4K);
    assert_eq!(fixture.access(0, EPTP, GPA, READ), Outcome::Ept01(GuestPhysAddr::new(REGION.base | 0x678)));
    assert_eq!(fixture.cached(0, GPA), None);
    fixture.protect(View::SHARED, page_range(0x30_5000), Rights::READ);
    fixture.map(EPTP, GPA, 0x30_5000 | WB | RWX, PageSize::Size4K);
    assert_eq!(fixture.access(0, EPTP, GPA, WRITE), Outcome::Ept01(GuestPhysAddr::new(0x30_5678)));
    assert_eq!(fixture.access(0, EPTP, GPA, READ), Outcome::Mapped);
    assert_eq!(fixture.cached(0, GPA).map(|found| found.1.rights()), Some(Rights::READ));
    // L1's tables are asked first.
    fixture.map(EPTP, GPA, 0x30_5000 | WB | 1, PageSize::Size4K);
    assert_eq!(fixture.access(0, EPTP, GPA, WRITE), violation(8 | WRITE));
}

#[test]
fn a_line_of_neighbours_comes_with_a_page() {
    let memory = SimMemory::new(0);
    let fixture = fixture(&memory);
    let beside = GPA + PAGE_SIZE;
    fixture.map(EPTP, beside, 0x33_3000 | WB | RWX, PageSize::Size4K);
    fixture.map(EPTP, GPA + 2 * PAGE_SIZE, REGION.base | WB | RWX, PageSize::Size4K);
    fixture.protect(View::SHARED, page_range(0x55_5000), Rights::READ);
    fixture.map(EPTP, GPA - PAGE_SIZE, 0x55_5000 | WB | RWX, PageSize::Size4K);
    assert_eq!(fixture.access(0, EPTP, GPA, READ), Outcome::Mapped);
    let found = fixture.cached(0, beside).map(|found| (found.0, found.1.rights()));
    assert_eq!(found, Some((0x33_3678, Rights::all())));
    // Not what the policy says otherwise of, nor what lies in another line.
    assert_eq!([GPA - PAGE_SIZE, GPA + 2 * PAGE_SIZE].map(|gpa| fixture.cached(0, gpa)), [None; 2]);
}

#[test]
fn writes_fault_until_l1s_dirty_flag_is_set() {
    let memory = SimMemory::new(0);
    let fixture = fixture(&memory);
    let pointer = EPTP.with_accessed_dirty(true);
    assert!(fixture.enter(0, pointer).has_accessed_dirty());
    assert_eq!(fixture.access(0, pointer, GPA, READ), Outcome::Mapped);
    assert_eq!(fixture.cached(0, GPA).map(|found| found.1.rights()), Some(Rights::READ | Rights::EXECUTE));
    assert_eq!(fixture.access(0, pointer, GPA, WRITE), Outcome::Mapped);
    assert_eq!(fixture.cached(0, GPA).map(|found| found.1.rights()), Some(Rights::all()));
    let leaf = EptEntry(fixture.l1.get_u64(0x4000 + 8 * 5));
    assert!(leaf.is_accessed() && leaf.is_dirty());
    // Tables without flags are others, though L1's are the same.
    assert!(!fixture.enter(0, EPTP).has_accessed_dirty());
    assert_eq!(fixture.cached(0, GPA), None);
}

#[test]
fn a_full_log_is_an_exit_and_no_mapping() {
    let memory = SimMemory::new(0);
    let fixture = fixture(&memory);
    let pointer = EPTP.with_accessed_dirty(true);
    fixture.enter(0, pointer);
    let mut log = PageModificationLog { page: GuestPhysAddr::new(0x8000), index: 0 };
    let mut write = |gpa| fixture.access_and_log(0, pointer, gpa, 0x1000 | WRITE, Some(&mut log));
    assert_eq!(write(GPA), Outcome::Mapped);
    fixture.map(EPTP, GPA, 0x30_5000 | WB | RWX, PageSize::Size4K);
    assert_eq!(write(GPA), Outcome::LogFull { qualification: 0x1000 });
    assert_eq!(fixture.l1.get_u64(0x8000), GPA & !0xfff);
}

#[test]
fn stale_translations_a_violation_lets_l1_reuse_its_page() {
    let memory = SimMemory::new(0);
    let fixture = fixture(&memory);
    fixture.map(EPTP, GPA, 0x30_5000 | WB | 1, PageSize::Size4K);
    assert_eq!(fixture.access(0, EPTP, GPA, READ), Outcome::Mapped);
    assert_eq!(fixture.access(0, EPTP, GPA, WRITE), violation(8 | WRITE));
    assert_eq!(fixture.cached(0, GPA), None);
}

#[test]
fn stale_translations_a_fill_overtaken_by_invept_is_given_up() {
    let memory = SimMemory::new(0);
    let fixture = fixture(&memory);
    fixture
        .between
        .replace(Some(Box::new(|fixture| fixture.cache.borrow_mut().invalidate(Named::All, |_| {}))));
    assert_eq!(fixture.access(0, EPTP, GPA, READ), Outcome::Mapped);
    assert_eq!(fixture.cached(0, GPA), None);
    fixture.between.replace(Some(Box::new(|fixture| {
        fixture.cache.borrow_mut().violate(1, GuestPhysAddr::new(0x1000));
    })));
    assert_eq!(fixture.access(0, EPTP, GPA, READ), Outcome::Mapped);
    assert_eq!(fixture.cached(0, GPA), None);
    assert_eq!(fixture.access(0, EPTP, GPA, READ), Outcome::Mapped);
    assert!(fixture.cached(0, GPA).is_some());
}

#[test]
fn a_cpu_without_root_or_with_a_race_is_not_served_and_goes_on() {
    let memory = SimMemory::new(0);
    let fixture = fixture(&memory);
    assert_eq!(fixture.access(1, EPTP, GPA, READ), Outcome::Mapped);
    let pointer = EPTP.with_accessed_dirty(true);
    fixture.enter(0, pointer);
    fixture.l1.lost_races.set(1000);
    assert_eq!(fixture.access(0, pointer, GPA, READ), Outcome::Mapped);
    assert_eq!(fixture.cached(0, GPA), None);
}

#[test]
fn invept_hits_only_what_it_names() {
    let memory = SimMemory::new(0);
    let fixture = fixture(&memory);
    let other = eptp(0x9000);
    fixture.map(other, GPA, 0x44_4000 | WB | RWX, PageSize::Size4K);
    let flagged = EPTP.with_accessed_dirty(true);
    let roots = [(0, EPTP), (1, other), (2, flagged)].map(|(cpu, pointer)| fixture.enter(cpu, pointer));
    let fill = || {
        for (cpu, pointer) in [(0, EPTP), (1, other), (2, flagged)] {
            assert_eq!(fixture.access(cpu, pointer, GPA, READ), Outcome::Mapped);
        }
    };
    let invalidate = |named| {
        let mut hit = Vec::new();
        fixture.cache.borrow_mut().invalidate(named, |pointer| hit.push(pointer));
        let kept = [0, 1, 2].map(|cpu| fixture.cached(cpu, GPA).is_some());
        (hit, kept)
    };
    fill();
    assert_eq!(invalidate(Named::Single(eptp(0x7000))), (vec![], [true; 3]));
    // Single-context INVEPT goes by the address of the root alone.
    assert_eq!(invalidate(Named::Single(EPTP)), (vec![roots[0], roots[2]], [false, true, false]));
    fill();
    assert_eq!(invalidate(Named::All), (roots.to_vec(), [false; 3]));
}

#[test]
fn all_cpus_share_a_root_and_keep_it_while_they_are_on_it() {
    let memory = SimMemory::new(0);
    let fixture = fixture(&memory);
    assert_eq!(fixture.enter(1, EPTP), fixture.enter(0, EPTP));
    assert_eq!(fixture.access(0, EPTP, GPA, READ), Outcome::Mapped);
    assert!(fixture.cached(1, GPA).is_some());
    // Thousands of other pointers come and go on CPU 1.
    let root = fixture.enter(0, EPTP);
    for number in 0..5000 {
        fixture.enter(1, eptp(0x10_0000 + number * PAGE_SIZE));
    }
    assert_eq!((fixture.enter(0, EPTP), fixture.enter(1, EPTP)), (root, root));
    assert!(fixture.cached(0, GPA).is_some());
    // InheritedByL1 by all, it is the oldest some time.
    fixture.enter(0, eptp(0x20_0000));
    for number in 0..8 {
        fixture.enter(1, eptp(0x30_0000 + number * PAGE_SIZE));
    }
    fixture.enter(0, EPTP);
    assert_eq!(fixture.cached(0, GPA), None);
}

#[test]
fn a_dry_pool_gives_up_other_roots_first_then_its_own() {
    let memory = SimMemory::new(0);
    let fixture = Fixture::new(&memory, 16, 4, PageSize::Size1G);
    let other = eptp(0x9000);
    fixture.map(other, 0, 0x44_4000 | WB | RWX, PageSize::Size4K);
    fixture.enter(0, other);
    assert_eq!(fixture.access(0, other, 0, READ), Outcome::Mapped);
    fixture.enter(0, EPTP);
    // Each GiB of this L2 takes two tables more; L1's are one and the same for all of them.
    fixture.map(EPTP, 0, 0x30_5000 | WB | RWX, PageSize::Size4K);
    for gib in 1..64_u64 {
        fixture.l1.put_u64(0x2000 + 8 * gib, 0x3000 | RWX);
    }
    let mut reclaims = 0;
    for gib in 0..64_u64 {
        while fixture.access(0, EPTP, gib << 30, READ) == Outcome::Exhausted {
            fixture.reclaim();
            reclaims += 1;
            assert!(reclaims < 64);
        }
        assert!(fixture.cached(0, gib << 30).is_some());
        if reclaims == 1 {
            // The other root's four frames were enough.
            assert!((0..gib).all(|gib| fixture.cached(0, gib << 30).is_some()));
        }
    }
    let kept = (0..64_u64).filter(|gib| fixture.cached(0, gib << 30).is_some()).count();
    assert!((5..8).contains(&kept), "{kept} pages are kept");
    assert!(reclaims > 2);
}

#[test]
fn dropped_frames_wait_for_a_flush() {
    let memory = SimMemory::new(0);
    let fixture = fixture(&memory);
    assert_eq!(fixture.access(0, EPTP, GPA, READ), Outcome::Mapped);
    let used = fixture.cache.borrow().frames_in_use();
    fixture.cache.borrow_mut().invalidate(Named::All, |_| {});
    assert_eq!(fixture.cache.borrow().frames_in_use(), used);
    fixture.reclaim();
    assert_eq!(fixture.cache.borrow().frames_in_use(), 1);
}

#[test]
fn protections_reach_every_root_and_views_their_own() {
    let memory = SimMemory::new(0);
    let fixture = fixture(&memory);
    let own = View::of_cpu(1);
    assert!(fixture.second_level.borrow_mut().open_view(own).is_ok());
    assert!(fixture.cache.borrow_mut().enter(1, EPTP, own).is_ok());
    fixture.map(EPTP, 0, 0x80 | WB | RWX, PageSize::Size2M);
    let fill = || {
        for cpu in [0, 1] {
            assert_eq!(fixture.access(cpu, EPTP, GPA, READ), Outcome::Mapped);
            assert_eq!(fixture.access(cpu, EPTP, 0x5000, READ), Outcome::Mapped);
        }
    };
    let kept = |gpa| [0, 1].map(|cpu| fixture.cached(cpu, gpa).is_some());
    fill();
    fixture.protect(View::SHARED, page_range(0x30_5000), Rights::READ);
    assert_eq!((kept(GPA), kept(0x5000)), ([false; 2], [true; 2]));
    fill();
    fixture.protect(own, page_range(0x7000), Rights::empty());
    assert_eq!((kept(GPA), kept(0x5000)), ([true; 2], [true, false]));
    assert_eq!(fixture.access(1, EPTP, 0x7000, READ), Outcome::Ept01(GuestPhysAddr::new(0x7000)));
    fill();
    fixture.change(|second_level| Ok(second_level.close_view(own)));
    assert_eq!((kept(GPA), kept(0x5000)), ([true, false], [true, false]));
}

#[test]
fn decoys_come_and_go_in_every_root() {
    let memory = SimMemory::new(0);
    let fixture = fixture(&memory);
    let decoy = fixture.second_level.borrow().policy().decoy().get();
    let hidden = page_range(0x30_5000);
    assert_eq!(fixture.access(0, EPTP, GPA, WRITE), Outcome::Mapped);
    fixture.change(|second_level| second_level.cover(hidden, Some(Protection::Decoy)));
    assert_eq!(fixture.cached(0, GPA), None);
    assert_eq!(fixture.access(0, EPTP, GPA, WRITE), Outcome::Ept01(GuestPhysAddr::new(0x30_5678)));
    assert_eq!(fixture.access(0, EPTP, GPA, READ), Outcome::Mapped);
    let found = fixture.cached(0, GPA).map(|(at, entry)| (at, entry.rights()));
    assert_eq!(found, Some((decoy + 0x678, Rights::READ)));
    fixture.change(|second_level| second_level.reset_rights(View::SHARED, hidden));
    assert_eq!(fixture.cached(0, GPA), None);
    assert_eq!(fixture.access(0, EPTP, GPA, WRITE), Outcome::Mapped);
    assert_eq!(fixture.cached(0, GPA).map(|found| found.0), Some(0x30_5678));
}

#[test]
fn stale_translations_pages_of_two_sizes_replace_each_other() {
    let memory = SimMemory::new(0);
    let fixture = fixture(&memory);
    fixture.map(EPTP, 0, 0x80_0080 | WB | RWX, PageSize::Size2M);
    assert_eq!(fixture.access(0, EPTP, 0x5000, READ), Outcome::Mapped);
    fixture.map(EPTP, 0x5000, 0x66_6000 | WB | RWX, PageSize::Size4K);
    assert_eq!(fixture.access(0, EPTP, 0x5000, WRITE), Outcome::Mapped);
    assert_eq!(fixture.cached(0, 0x5000).map(|found| found.0), Some(0x66_6000));
    assert_eq!(fixture.cached(0, 0x4000), None);
    let used = fixture.cache.borrow().frames_in_use();
    fixture.map(EPTP, 0, 0x80_0080 | WB | RWX, PageSize::Size2M);
    assert_eq!(fixture.access(0, EPTP, 0x5000, WRITE), Outcome::Mapped);
    assert_eq!(fixture.cached(0, 0x4000).map(|found| found.0), Some(0x80_4000));
    fixture.reclaim();
    // The flush happens with the next reclaim that needs frames; here it was asked for at once.
    assert_eq!(fixture.cache.borrow().frames_in_use(), used - 1);
}
