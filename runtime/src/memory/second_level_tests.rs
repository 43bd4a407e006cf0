//! Named cases over the neutral format, and policy, tables and a processor's stale translations against a
//! plain list of pages.

use super::{ProtectError, RESERVE, Resolution, SecondLevel};
use crate::memory::flush::Flush;
use crate::memory::frame::Exhausted;
use crate::memory::plain_format::PlainFormat;
use crate::memory::policy::Machine;
use crate::memory::range::GuestRange;
use crate::memory::views::View;
use hw::sim::SimMemory;
use platform::handoff::PhysRange;
use platform::mtrr_map::Mtrrs;
use proptest::prelude::*;
use x86::address::{GuestPhysAddr, HostPhysAddr};
use x86::mtrr::{MemoryType, MtrrCapabilities, MtrrDefaultType, VariableMtrr};
use x86::paging::{Attributes, PageSize, Rights};

const PAGE: u64 = 4096;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const REGION: PhysRange = PhysRange { base: GIB + 16 * MIB, length: 8 * MIB };
const CPU: View = View::SHARED;

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

fn machine(largest_page: PageSize) -> Machine {
    Machine {
        region: REGION,
        physical_address_bits: 39,
        largest_page,
        has_execute_only: false,
        mtrrs: mtrrs(),
    }
}

fn started(largest_page: PageSize, frames: u64) -> Memory {
    let mut memory = SecondLevel::new(SimMemory::new(0xff));
    assert_eq!(memory.frames().add(HostPhysAddr::new(REGION.base), frames * PAGE), Ok(()));
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
fn the_guest_never_gets_hypervisor_memory_or_what_tables_cannot_reach() {
    let mut memory = started(PageSize::Size1G, 128);
    for address in [REGION.base, REGION.base + REGION.length - 1, 1 << 39, 1 << 48, 1 << 51, u64::MAX] {
        assert_eq!(read(&mut memory, CPU, address), Resolution::Hidden, "{address:#x}");
        assert_eq!(memory.rights(CPU, gpa(address)), Rights::empty());
    }
    for range in [
        pages(REGION.base, PAGE),
        pages(REGION.base - PAGE, 2 * PAGE),
        pages(REGION.base + REGION.length - PAGE, 2 * PAGE),
        pages(0, 4 * GIB),
    ] {
        assert_eq!(memory.set_rights(CPU, range, Rights::all()), Err(ProtectError::HypervisorMemory));
        assert_eq!(memory.reset_rights(CPU, range), Err(ProtectError::HypervisorMemory));
    }
    assert_eq!(memory.set_rights(CPU, pages(1 << 39, PAGE), Rights::READ), Err(ProtectError::OutOfReach));
}

#[test]
fn protections_are_found_by_the_next_access_and_gone_after_reset() {
    let mut memory = started(PageSize::Size1G, 128);
    assert_eq!(memory.fill_below(gpa(4 * GIB)), Ok(()));
    let page = 2 * GIB + 5 * PAGE;
    let flush = memory.set_rights(CPU, pages(page, PAGE), Rights::READ);
    assert!(flush.as_ref().is_ok_and(Flush::is_needed));
    assert_eq!(memory.mapped(CPU, gpa(page)).map(|m| m.2.rights), Some(Rights::READ));
    assert_eq!(memory.violation(CPU, gpa(page), Rights::WRITE), Resolution::Protected(Rights::READ));
    assert_eq!(read(&mut memory, CPU, page), Resolution::Filled);
    assert_eq!(size_at(&memory, page + PAGE), Some(PageSize::Size4K));
    assert_eq!(size_at(&memory, 3 * GIB - 1), Some(PageSize::Size2M));

    assert!(memory.reset_rights(CPU, pages(page, PAGE)).is_ok_and(|f| f.is_needed()));
    assert_eq!(size_at(&memory, page), Some(PageSize::Size1G));
    assert_eq!(memory.violation(CPU, gpa(page), Rights::WRITE), Resolution::Filled);
    assert_eq!(memory.table_pages(), 5);
}

#[test]
fn rights_that_no_entry_can_say_are_refused() {
    let mut memory = started(PageSize::Size2M, 128);
    let page = pages(GIB, PAGE);
    for rights in [Rights::WRITE, Rights::WRITE | Rights::EXECUTE, Rights::EXECUTE] {
        assert_eq!(memory.set_rights(CPU, page, rights), Err(ProtectError::Unsupported));
    }
    let mut able = SecondLevel::<_, PlainFormat>::new(SimMemory::new(0));
    assert_eq!(able.frames().add(HostPhysAddr::new(REGION.base), 100 * PAGE), Ok(()));
    assert_eq!(able.start(&Machine { has_execute_only: true, ..machine(PageSize::Size2M) }), Ok(()));
    assert_eq!(able.set_rights(CPU, page, Rights::EXECUTE), Ok(Flush::NONE));
    assert_eq!(able.set_rights(CPU, page, Rights::WRITE), Err(ProtectError::Unsupported));
}

#[test]
fn a_view_says_its_own_and_else_what_the_shared_one_says() {
    let mut memory = started(PageSize::Size2M, 128);
    let (own, page) = (View::of_cpu(1), pages(GIB, PAGE));
    assert_eq!(memory.set_rights(own, page, Rights::READ), Err(ProtectError::NoView));
    let root = memory.open_view(own);
    assert!(root.is_ok() && root.ok() != memory.root(CPU));
    assert_eq!(memory.set_rights(own, page, Rights::READ), Ok(Flush::NONE));
    assert_eq!(memory.set_rights(CPU, pages(GIB, 2 * PAGE), Rights::empty()), Ok(Flush::NONE));
    assert_eq!(read(&mut memory, own, GIB), Resolution::Filled);
    assert_eq!(read(&mut memory, CPU, GIB), Resolution::Protected(Rights::empty()));
    assert_eq!(read(&mut memory, own, GIB + PAGE), Resolution::Protected(Rights::empty()));
    assert!(memory.reset_rights(own, page).is_ok_and(|f| f.is_needed()));
    assert_eq!(read(&mut memory, own, GIB), Resolution::Protected(Rights::empty()));

    let used = memory.table_pages();
    assert!(memory.close_view(own).is_needed());
    assert!(memory.table_pages() < used);
    assert_eq!((memory.root(own), read(&mut memory, own, 0)), (None, Resolution::Hidden));
    assert!(!memory.close_view(CPU).is_needed());
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
fn garbage_mtrrs_cost_a_bounded_number_of_writes() {
    let mut memory = started(PageSize::Size2M, 128);
    assert_eq!(memory.fill_below(gpa(4 * GIB)), Ok(()));
    let mut garbage = mtrrs();
    garbage.variable[1] = VariableMtrr { base: 0, mask: 0x1800 };
    memory.memory.clear_history();
    assert!(memory.adopt_mtrrs(&garbage).is_needed());
    assert!(memory.set_rights(CPU, pages(2 * GIB, GIB), Rights::READ).is_ok());
    assert_eq!(read(&mut memory, CPU, 2 * GIB + PAGE), Resolution::Filled);
    assert_eq!(size_at(&memory, 2 * GIB + PAGE), Some(PageSize::Size4K));
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
    assert_eq!((memory.frames().available(), memory.table_pages()), (127, 1));
}

#[test]
fn too_few_frames_are_refused_at_the_start() {
    let mut memory: Memory = SecondLevel::new(SimMemory::new(0));
    assert_eq!(memory.frames().add(HostPhysAddr::new(0), (RESERVE as u64 - 1) * PAGE), Ok(()));
    assert_eq!(memory.start(&machine(PageSize::Size2M)), Err(Exhausted));
}

#[test]
fn more_than_a_tebibyte_is_mapped_where_it_is_touched() {
    let mut memory = SecondLevel::<_, PlainFormat>::new(SimMemory::new(0xff));
    assert_eq!(memory.frames().add(HostPhysAddr::new(REGION.base), 128 * PAGE), Ok(()));
    let mtrrs = Mtrrs { physical_address_bits: 52, ..mtrrs() };
    let machine = Machine { physical_address_bits: 52, mtrrs, ..machine(PageSize::Size1G) };
    assert_eq!(memory.start(&machine), Ok(()));
    for address in [1 << 40, 3 << 40, (1 << 48) - 1] {
        assert_eq!(read(&mut memory, CPU, address), Resolution::Filled);
        assert_eq!(size_at(&memory, address), Some(PageSize::Size1G));
    }
    assert_eq!(read(&mut memory, CPU, 1 << 48), Resolution::Hidden);
}

/// What can happen, in pages of [`WINDOW`].
#[derive(Clone, Debug)]
enum Event {
    Set { view: usize, start: u64, length: u64, rights: Option<Rights> },
    Access { view: usize, page: u64, access: Rights },
    Mtrr { index: usize, base: u64, shift: u32, memory_type: u64 },
    Drop,
}

/// Pages looked at: the first 2 MiB of it belong to the hypervisor's region, the rest follow it.
const WINDOW: u64 = REGION.base + REGION.length - 2 * MIB;
const WINDOW_PAGES: u64 = 6 * MIB / PAGE;
const SAMPLE_STEP: usize = 31;

fn any_event() -> impl Strategy<Value = Event> {
    let some = [Rights::empty(), Rights::READ, Rights::READ | Rights::WRITE, Rights::all()];
    let rights = prop::sample::select(vec![None, Some(some[0]), Some(some[1]), Some(some[2]), Some(some[3])]);
    let length = prop_oneof![Just(1_u64), Just(31), Just(512), 1_u64..1024];
    prop_oneof![
        4 => (0_usize..2, 0..WINDOW_PAGES, length, rights)
            .prop_map(|(view, start, length, rights)| Event::Set { view, start, length, rights }),
        6 => (0_usize..2, 0..WINDOW_PAGES, prop::sample::select(some[1..].to_vec()))
            .prop_map(|(view, page, access)| Event::Access { view, page: page / 31 * 31, access }),
        2 => (1_usize..4, 0..WINDOW_PAGES, 12_u32..23, prop::sample::select(vec![0_u64, 1, 4, 6]))
            .prop_map(|(index, base, shift, memory_type)| Event::Mtrr { index, base, shift, memory_type }),
        1 => Just(Event::Drop),
    ]
}

/// The guest's machine, a flat model of the policy, and what a processor may have cached in each view.
struct World {
    memory: Memory,
    mtrrs: Mtrrs,
    rights: [Vec<Option<Rights>>; 2],
    cached: [Vec<Option<Attributes>>; 2],
}

impl World {
    const VIEWS: [View; 2] = [View::SHARED, View::of_cpu(0)];

    fn new(largest_page: PageSize, frames: u64) -> Self {
        let mut memory = started(largest_page, frames);
        assert_eq!(memory.fill_below(gpa(4 * GIB)), Ok(()));
        assert!(memory.open_view(Self::VIEWS[1]).is_ok());
        let pages = usize::try_from(WINDOW_PAGES).unwrap_or(0);
        Self {
            memory,
            mtrrs: mtrrs(),
            rights: [vec![None; pages], vec![None; pages]],
            cached: [vec![None; pages], vec![None; pages]],
        }
    }

    fn truth(&self, view: usize, page: usize) -> Option<Attributes> {
        let address = WINDOW + page as u64 * PAGE;
        let own = if view == 1 { self.rights[1][page] } else { None };
        let rights = own.or(self.rights[0][page]).unwrap_or(Rights::all());
        let is_hidden = address < REGION.base + REGION.length;
        (!is_hidden).then(|| Attributes { memory_type: self.mtrrs.type_at(address), rights })
    }

    fn flush(&mut self, flush: Flush) {
        if flush.is_needed() {
            self.cached.iter_mut().flatten().for_each(|entry| *entry = None);
        }
        self.memory.flushed(flush);
    }

    fn happen(&mut self, event: &Event) -> Result<(), TestCaseError> {
        match *event {
            Event::Set { view, start, length, rights } => self.set(view, start, length, rights)?,
            Event::Access { view, page, access } => self.access(view, page, access)?,
            Event::Mtrr { index, base, shift, memory_type } => {
                let base = (WINDOW + base * PAGE) & (!0 << shift) | memory_type;
                let mask = ((1 << 39) - (1 << shift)) | 0x800;
                self.mtrrs.variable[index] = VariableMtrr { base, mask };
                let flush = self.memory.adopt_mtrrs(&self.mtrrs);
                self.flush(flush);
            }
            Event::Drop => {
                let flush = self.memory.drop_tables();
                self.flush(flush);
            }
        }
        self.check()
    }

    fn set(
        &mut self,
        view: usize,
        start: u64,
        length: u64,
        rights: Option<Rights>,
    ) -> Result<(), TestCaseError> {
        let end = (start + length).min(WINDOW_PAGES);
        let range = GuestRange::between(WINDOW + start * PAGE, WINDOW + end * PAGE);
        let result = match rights {
            Some(rights) => self.memory.set_rights(Self::VIEWS[view], range, rights),
            None => self.memory.reset_rights(Self::VIEWS[view], range),
        };
        if start < 2 * MIB / PAGE {
            prop_assert_eq!(result, Err(ProtectError::HypervisorMemory));
            return Ok(());
        }
        for page in start..end {
            self.rights[view][usize::try_from(page).unwrap_or(0)] = rights;
        }
        match result {
            Ok(flush) => self.flush(flush),
            Err(error) => prop_assert!(false, "{error:?}"),
        }
        Ok(())
    }

    fn access(&mut self, view: usize, page: u64, access: Rights) -> Result<(), TestCaseError> {
        let index = usize::try_from(page).unwrap_or(0);
        let address = gpa(WINDOW + page * PAGE);
        let truth = self.truth(view, index);
        match self.memory.violation(Self::VIEWS[view], address, access) {
            Resolution::Filled => {
                prop_assert!(truth.is_some_and(|t| t.rights.contains(access)));
                let mapped = self.memory.mapped(Self::VIEWS[view], address).map(|m| m.2);
                prop_assert_eq!(mapped, truth);
                self.cached[view][index] = truth;
            }
            Resolution::Reclaimed(flush) => {
                self.flush(flush);
                prop_assert_eq!(
                    self.memory.violation(Self::VIEWS[view], address, access),
                    Resolution::Filled
                );
            }
            Resolution::Protected(rights) => {
                prop_assert_eq!(truth.map(|t| t.rights), Some(rights));
                prop_assert!(!rights.contains(access));
            }
            Resolution::Hidden => prop_assert_eq!(truth, None),
        }
        Ok(())
    }

    /// Tables say the truth or nothing; a processor that saw them before is never told too much.
    fn check(&mut self) -> Result<(), TestCaseError> {
        for view in 0..2 {
            for page in (0..self.rights[0].len()).step_by(SAMPLE_STEP) {
                let truth = self.truth(view, page);
                let found = self.memory.mapped(Self::VIEWS[view], gpa(WINDOW + page as u64 * PAGE));
                prop_assert!(found.is_none() || found.map(|m| m.2) == truth, "view {view} page {page}");
                let cached = &mut self.cached[view][page];
                let is_true = cached.is_none_or(|c| {
                    truth.is_some_and(|t| t.memory_type == c.memory_type && t.rights.contains(c.rights))
                });
                prop_assert!(is_true, "view {view} page {page}: stale {cached:?}, now {truth:?}");
                *cached = cached.or(found.map(|m| m.2));
            }
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn tables_and_processors_follow_the_policy(
        largest in prop::sample::select(vec![PageSize::Size2M, PageSize::Size1G]),
        frames in prop::sample::select(vec![RESERVE as u64, 512]),
        events in prop::collection::vec(any_event(), 1..40),
    ) {
        let mut world = World::new(largest, frames);
        for event in &events {
            world.happen(event)?;
        }
    }
}
