//! The walk, level by level, over tables in fake memory.

use super::{Ept12, Fault, PageModificationLog, Translation};
use crate::memory::guest::fake::FakeMemory;
use crate::memory::guest::{GuestMemory, Refused};
use core::cell::Cell;
use x86::address::{GuestPhysAddr, HostPhysAddr};
use x86::paging::{PageSize, Rights};
use x86::vmx::ept::EptPointer;
use x86::vmx::ept_entry::{EptEntry, EptFeatures};

/// Tables of levels 4 to 1, one after the other.
const TABLES: [u64; 4] = [0x1000, 0x2000, 0x3000, 0x4000];
const LOG: u64 = 0x5000;
/// Where indices are 1, 2, 3 and 4.
const GPA: u64 = 1 << 39 | 2 << 30 | 3 << 21 | 4 << 12 | 0x123;
const ENTRIES: [u64; 4] = [TABLES[0] + 8, TABLES[1] + 16, TABLES[2] + 24, TABLES[3] + 32];
const A: u64 = EptEntry::ACCESSED;
const D: u64 = EptEntry::DIRTY;
const WB: u64 = 6 << 3;
const RWX: u64 = 7;
const FEATURES: EptFeatures = EptFeatures {
    has_execute_only: true,
    has_2mib_pages: true,
    has_1gib_pages: true,
    physical_address_bits: 39,
};

/// GPA leads to 0x77_7123 through four levels.
fn memory() -> FakeMemory {
    let memory = FakeMemory::new(0x8000);
    for (at, next) in ENTRIES.into_iter().zip(&TABLES[1..]) {
        memory.put_u64(at, next | RWX);
    }
    memory.put_u64(ENTRIES[3], 0x77_7000 | WB | RWX);
    memory
}

fn walk(memory: &FakeMemory, has_flags: bool, access: Rights) -> Result<Translation, Fault> {
    walk_and_log(memory, has_flags, access, None)
}

fn walk_and_log(
    memory: &FakeMemory,
    has_flags: bool,
    access: Rights,
    log: Option<&mut PageModificationLog>,
) -> Result<Translation, Fault> {
    let pointer = EptPointer::new(HostPhysAddr::new(TABLES[0])).with_accessed_dirty(has_flags);
    translate(&Ept12 { memory, pointer, features: &FEATURES }, GPA, access, log)
}

fn translate<M: GuestMemory>(
    ept12: &Ept12<'_, M>,
    gpa: u64,
    access: Rights,
    log: Option<&mut PageModificationLog>,
) -> Result<Translation, Fault> {
    let mut found = Translation::EMPTY;
    ept12.translate(GuestPhysAddr::new(gpa), access, log, &mut found).map(|()| found)
}

fn facts(translation: Result<Translation, Fault>) -> Result<(u64, PageSize, Rights), Fault> {
    translation.map(|t| (t.page().get(), t.size(), t.rights()))
}

#[test]
fn four_levels_lead_to_a_page() {
    let memory = memory();
    let all = Ok((0x77_7000, PageSize::Size4K, Rights::all()));
    for access in [Rights::READ, Rights::WRITE, Rights::EXECUTE, Rights::all()] {
        assert_eq!(facts(walk(&memory, false, access)), all);
    }
    // Without flags nothing is written.
    assert_eq!(ENTRIES.map(|at| memory.get_u64(at) & (A | D)), [0; 4]);
}

#[test]
fn large_pages_end_the_walk() {
    let memory = memory();
    memory.put_u64(ENTRIES[2], 0x60_0000 | 0x80 | WB | RWX);
    assert_eq!(
        facts(walk(&memory, true, Rights::READ)),
        Ok((0x60_0000, PageSize::Size2M, Rights::READ | Rights::EXECUTE))
    );
    memory.put_u64(ENTRIES[1], 0x4000_0000 | 0x80 | WB | RWX);
    assert_eq!(facts(walk(&memory, false, Rights::READ)), Ok((0x4000_0000, PageSize::Size1G, Rights::all())));
    assert_eq!(memory.get_u64(ENTRIES[2]) & (A | D), A);
}

#[test]
fn every_level_can_take_every_right() {
    for (level, at) in ENTRIES.into_iter().enumerate() {
        for given in [1, 3, 4, 5, 7_u64] {
            let memory = memory();
            let entry = memory.get_u64(at);
            memory.put_u64(at, entry & !RWX | given);
            let given = Rights::from_bits_truncate(given.to_le_bytes()[0]);
            for access in [Rights::READ, Rights::WRITE, Rights::EXECUTE, Rights::READ | Rights::WRITE] {
                let expected = if given.contains(access) {
                    Ok((0x77_7000, PageSize::Size4K, given))
                } else {
                    Err(Fault::Violation(given))
                };
                assert_eq!(facts(walk(&memory, false, access)), expected, "level {}", 4 - level);
            }
        }
    }
}

#[test]
fn rights_of_all_levels_count_together() {
    let memory = memory();
    memory.put_u64(ENTRIES[0], TABLES[1] | 3);
    memory.put_u64(ENTRIES[2], TABLES[3] | 5);
    assert_eq!(walk(&memory, false, Rights::WRITE), Err(Fault::Violation(Rights::READ)));
    assert!(walk(&memory, false, Rights::READ).is_ok());
}

#[test]
fn an_entry_without_rights_is_not_present_whatever_else_it_says() {
    for at in ENTRIES {
        let memory = memory();
        memory.put_u64(at, !RWX);
        assert_eq!(walk(&memory, false, Rights::READ), Err(Fault::Violation(Rights::empty())));
    }
}

#[test]
fn misconfiguration_comes_before_missing_rights_at_every_level() {
    for at in ENTRIES {
        for wrong in [2_u64, 6] {
            let memory = memory();
            let entry = memory.get_u64(at);
            memory.put_u64(at, entry & !RWX | wrong);
            assert_eq!(walk(&memory, true, Rights::EXECUTE), Err(Fault::Misconfiguration));
            memory.put_u64(at, entry | 1 << 39);
            assert_eq!(walk(&memory, true, Rights::EXECUTE), Err(Fault::Misconfiguration));
            assert_eq!(memory.get_u64(ENTRIES[0]) & A, 0, "no flag is set");
        }
    }
    let memory = memory();
    memory.put_u64(ENTRIES[0], TABLES[1] | 1);
    memory.put_u64(ENTRIES[3], 0x77_7000 | 7 << 3 | RWX);
    assert_eq!(walk(&memory, false, Rights::WRITE), Err(Fault::Misconfiguration));
}

#[test]
fn tables_in_memory_that_is_not_l1s_are_misconfigured() {
    for table in TABLES {
        let mut memory = memory();
        memory.hidden = table..table + 0x1000;
        assert_eq!(walk(&memory, false, Rights::READ), Err(Fault::Misconfiguration));
    }
    let memory = memory();
    memory.put_u64(ENTRIES[1], 0x7f_ffff_f000 | RWX);
    assert_eq!(walk(&memory, false, Rights::READ), Err(Fault::Misconfiguration));
}

#[test]
fn tables_may_be_loops() {
    // One table on all levels: its entry 0 references itself, or maps a page at the lowest level.
    let memory = FakeMemory::new(0x8000);
    memory.put_u64(0x1000, 0x1000 | RWX);
    let pointer = EptPointer::new(HostPhysAddr::new(0x1000));
    let ept12 = Ept12 { memory: &memory, pointer, features: &FEATURES };
    let found = translate(&ept12, 0x10, Rights::WRITE, None);
    assert_eq!(facts(found), Ok((0x1000, PageSize::Size4K, Rights::all())));
}

#[test]
fn addresses_beyond_four_levels_are_not_translated() {
    let memory = memory();
    let pointer = EptPointer::new(HostPhysAddr::new(TABLES[0]));
    let ept12 = Ept12 { memory: &memory, pointer, features: &FEATURES };
    assert_eq!(translate(&ept12, GPA | 1 << 48, Rights::READ, None), Err(Fault::Violation(Rights::empty())));
}

#[test]
fn a_read_sets_accessed_flags_and_keeps_writes_out_until_dirty() {
    let memory = memory();
    let read_execute = Rights::READ | Rights::EXECUTE;
    assert_eq!(facts(walk(&memory, true, Rights::READ)), Ok((0x77_7000, PageSize::Size4K, read_execute)));
    assert_eq!(ENTRIES.map(|at| memory.get_u64(at) & (A | D)), [A; 4]);
    assert_eq!(facts(walk(&memory, true, Rights::WRITE)), Ok((0x77_7000, PageSize::Size4K, Rights::all())));
    assert_eq!(ENTRIES.map(|at| memory.get_u64(at) & (A | D)), [A, A, A, A | D]);
    assert_eq!(facts(walk(&memory, true, Rights::READ)), Ok((0x77_7000, PageSize::Size4K, Rights::all())));
}

#[test]
fn a_lost_race_reads_again_and_gives_up_for_a_while() {
    let memory = memory();
    memory.lost_races.set(3);
    assert!(walk(&memory, true, Rights::WRITE).is_ok());
    memory.put_u64(ENTRIES[3], 0x77_7000 | WB | RWX);
    memory.lost_races.set(1000);
    assert_eq!(walk(&memory, true, Rights::WRITE), Err(Fault::Changed));
    assert_eq!(memory.get_u64(ENTRIES[3]) & D, 0);
}

#[test]
fn flags_in_memory_that_ignores_writes_are_lost() {
    let mut memory = memory();
    memory.read_only = 0x1000..0x5000;
    assert_eq!(facts(walk(&memory, true, Rights::WRITE)), Ok((0x77_7000, PageSize::Size4K, Rights::all())));
    assert_eq!(ENTRIES.map(|at| memory.get_u64(at) & (A | D)), [0; 4]);
}

#[test]
fn a_write_to_a_clean_page_is_logged() {
    let memory = memory();
    let mut log = PageModificationLog { page: GuestPhysAddr::new(LOG), index: 1 };
    assert!(walk_and_log(&memory, true, Rights::READ, Some(&mut log)).is_ok());
    assert_eq!(log.index, 1);
    assert!(walk_and_log(&memory, true, Rights::WRITE, Some(&mut log)).is_ok());
    assert!(walk_and_log(&memory, true, Rights::WRITE, Some(&mut log)).is_ok());
    assert_eq!((log.index, memory.get_u64(LOG + 8)), (0, GPA & !0xfff));
    memory.put_u64(ENTRIES[3], 0x77_7000 | WB | RWX);
    assert!(walk_and_log(&memory, true, Rights::WRITE, Some(&mut log)).is_ok());
    assert_eq!((log.index, memory.get_u64(LOG)), (0xffff, GPA & !0xfff));
}

#[test]
fn a_full_log_leaves_the_page_clean() {
    let memory = memory();
    for index in [512, 0xffff] {
        let mut log = PageModificationLog { page: GuestPhysAddr::new(LOG), index };
        assert_eq!(walk_and_log(&memory, true, Rights::WRITE, Some(&mut log)), Err(Fault::LogFull));
        assert_eq!((log.index, memory.get_u64(ENTRIES[3]) & D), (index, 0));
    }
}

#[test]
fn a_log_in_memory_that_is_not_l1s_swallows_entries() {
    let mut memory = memory();
    memory.hidden = LOG..LOG + 0x1000;
    let mut log = PageModificationLog { page: GuestPhysAddr::new(LOG), index: 7 };
    assert!(walk_and_log(&memory, true, Rights::WRITE, Some(&mut log)).is_ok());
    assert_eq!((log.index, memory.get_u64(LOG + 56)), (6, 0));
}

#[test]
fn neighbours_come_with_a_page_where_they_say_the_same() {
    let memory = memory();
    // Entries 0 to 7 are one line; ours is 4.
    memory.put_u64(TABLES[3], 0x10_0000 | WB | RWX);
    memory.put_u64(TABLES[3] + 8, 0x10_1000 | WB | A | RWX);
    memory.put_u64(TABLES[3] + 16, 0x10_2000 | WB | A | D | RWX);
    memory.put_u64(TABLES[3] + 24, 0x10_3000 | WB | A | D | 5);
    memory.put_u64(TABLES[3] + 40, 0x10_5000 | 7 << 3 | A | D | RWX);
    memory.put_u64(TABLES[3] + 48, 0x10_6000 | 1 << 39 | WB | A | D | RWX);
    memory.put_u64(TABLES[3] + 64, 0x10_8000 | WB | A | D | RWX);
    let beside = |has_flags| -> Vec<_> {
        let Ok(translation) = walk(&memory, has_flags, Rights::READ) else { return Vec::new() };
        let neighbour = |i| translation.neighbour(i, &FEATURES);
        let facts = |(entry, rights): (EptEntry, Rights)| (entry.address(PageSize::Size4K), rights.bits());
        (0..8).map(|position| neighbour(position).map(facts)).collect()
    };
    let none = None;
    let without_flags = [Some((0x10_0000, 7)), Some((0x10_1000, 7)), Some((0x10_2000, 7)), none];
    assert_eq!(beside(false)[..4], without_flags);
    assert_eq!(beside(false)[4..], [Some((0x77_7000, 7)), none, none, none]);
    // With flags: not what was never accessed, and no writes to what is clean.
    assert_eq!(beside(true)[..4], [none, Some((0x10_1000, 5)), Some((0x10_2000, 7)), none]);
    assert_eq!(beside(true)[4..], [Some((0x77_7000, 5)), none, none, none]);
}

/// Memory in which each word changes as soon as it was read.
struct Hostile<'a> {
    memory: &'a FakeMemory,
    reads: Cell<usize>,
}

impl GuestMemory for Hostile<'_> {
    fn read(&self, at: GuestPhysAddr, bytes: &mut [u8]) -> Result<(), Refused> {
        self.memory.read(at, bytes)
    }
    fn write(&self, at: GuestPhysAddr, bytes: &[u8]) -> Result<(), Refused> {
        self.memory.write(at, bytes)
    }
    fn read_words(&self, at: GuestPhysAddr, words: &mut [u64]) -> Result<(), Refused> {
        self.reads.set(self.reads.get() + 1);
        self.memory.read_words(at, words)?;
        for offset in 0..words.len() as u64 {
            self.memory.put_u64(at.get() + 8 * offset, !0);
        }
        Ok(())
    }
    fn compare_exchange(&self, at: GuestPhysAddr, current: u64, new: u64) -> Result<bool, Refused> {
        self.memory.compare_exchange(at, current, new)
    }
    fn physical_address_bits(&self) -> u8 {
        39
    }
    fn has_1gib_pages(&self) -> bool {
        true
    }
}

#[test]
fn double_fetch_no_entry_is_read_twice() {
    let memory = memory();
    let hostile = Hostile { memory: &memory, reads: Cell::new(0) };
    let pointer = EptPointer::new(HostPhysAddr::new(TABLES[0]));
    let ept12 = Ept12 { memory: &hostile, pointer, features: &FEATURES };
    let found = translate(&ept12, GPA, Rights::READ, None);
    assert_eq!(facts(found), Ok((0x77_7000, PageSize::Size4K, Rights::all())));
    assert_eq!(hostile.reads.get(), 4);
}
