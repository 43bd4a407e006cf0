//! Policy, tables and a processor's stale translations against a plain list of pages.

use super::{CPU_VIEWS, GIB, MIB, Memory, REGION, gpa, mtrrs, started};
use crate::memory::flush::Flush;
use crate::memory::protect::Protection;
use crate::memory::range::GuestRange;
use crate::memory::second_level::{ProtectError, RESERVE, Resolution};
use platform::mtrr_map::Mtrrs;
use proptest::prelude::*;
use x86::mtrr::VariableMtrr;
use x86::paging::PAGE_SIZE;
use x86::paging::{Attributes, PageSize, Rights};

/// What can happen, in pages of [`WINDOW`].
#[derive(Clone, Debug)]
enum Event {
    Set { view: usize, start: u64, length: u64, what: Option<Protection> },
    Access { view: usize, page: u64, access: Rights },
    Mtrr { index: usize, base: u64, shift: u32, memory_type: u64 },
    Drop,
}

/// Pages looked at: the first 2 MiB of it belong to the hypervisor's region, the rest follow it.
const WINDOW: u64 = REGION.base + REGION.length - 2 * MIB;
const WINDOW_PAGES: u64 = 6 * MIB / PAGE_SIZE;
const SAMPLE_STEP: usize = 31;

fn any_event() -> impl Strategy<Value = Event> {
    let some = [Rights::empty(), Rights::READ, Rights::READ | Rights::WRITE, Rights::all()];
    let mut what = vec![None, Some(Protection::Decoy)];
    what.extend(some.map(|rights| Some(Protection::Rights(rights))));
    let what = prop::sample::select(what);
    let length = prop_oneof![Just(1_u64), Just(31), Just(512), 1_u64..1024];
    prop_oneof![
        4 => (0_usize..2, 0..WINDOW_PAGES, length, what)
            .prop_map(|(view, start, length, what)| Event::Set { view, start, length, what }),
        6 => (0_usize..2, 0..WINDOW_PAGES, prop::sample::select(some[1..].to_vec()))
            .prop_map(|(view, page, access)| Event::Access { view, page: page / 31 * 31, access }),
        2 => (1_usize..4, 0..WINDOW_PAGES, 12_u32..23, prop::sample::select(vec![0_u64, 1, 4, 6]))
            .prop_map(|(index, base, shift, memory_type)| Event::Mtrr { index, base, shift, memory_type }),
        1 => Just(Event::Drop),
    ]
}

/// The guest's machine, a flat model of the policy, and what a processor may have cached in each view.
struct Fixture {
    memory: Memory,
    mtrrs: Mtrrs,
    set: [Vec<Option<Protection>>; 2],
    cached: [Vec<Option<Attributes>>; 2],
}

impl Fixture {
    fn new(largest_page: PageSize, frames: u64) -> Self {
        let mut memory = started(largest_page, frames);
        assert_eq!(memory.fill_below(gpa(4 * GIB)), Ok(()));
        assert!(memory.open_view(CPU_VIEWS[1]).is_ok());
        let pages = usize::try_from(WINDOW_PAGES).unwrap_or(0);
        Self {
            memory,
            mtrrs: mtrrs(),
            set: [vec![None; pages], vec![None; pages]],
            cached: [vec![None; pages], vec![None; pages]],
        }
    }

    fn truth(&self, view: usize, page: usize) -> Option<Attributes> {
        let address = WINDOW + page as u64 * PAGE_SIZE;
        let own = if view == 1 { self.set[1][page] } else { None };
        let what = own.or(self.set[0][page]).unwrap_or(Protection::Rights(Rights::all()));
        let (rights, is_decoy) = (what.rights(), what == Protection::Decoy);
        let is_hidden = address < REGION.base + REGION.length;
        (!is_hidden).then(|| Attributes { memory_type: self.mtrrs.type_at(address), rights, is_decoy })
    }

    fn flush(&mut self, flush: Flush) {
        if flush.is_needed() {
            self.cached.iter_mut().flatten().for_each(|entry| *entry = None);
        }
        self.memory.flushed(flush);
    }

    fn happen(&mut self, event: &Event) -> Result<(), TestCaseError> {
        match *event {
            Event::Set { view, start, length, what } => self.set(view, start, length, what)?,
            Event::Access { view, page, access } => self.access(view, page, access)?,
            Event::Mtrr { index, base, shift, memory_type } => {
                let base = (WINDOW + base * PAGE_SIZE) & (!0 << shift) | memory_type;
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
        what: Option<Protection>,
    ) -> Result<(), TestCaseError> {
        let end = (start + length).min(WINDOW_PAGES);
        let range = GuestRange::between(WINDOW + start * PAGE_SIZE, WINDOW + end * PAGE_SIZE);
        // Only all CPUs together are shown a decoy.
        let view = if what == Some(Protection::Decoy) { 0 } else { view };
        let result = match what {
            Some(Protection::Decoy) => self.memory.cover(range, Some(Protection::Decoy)),
            Some(Protection::Rights(rights)) => self.memory.set_rights(CPU_VIEWS[view], range, rights),
            None if view == 0 && start % 2 == 1 => self.memory.cover(range, None),
            None => self.memory.reset_rights(CPU_VIEWS[view], range),
        };
        if start < 2 * MIB / PAGE_SIZE {
            prop_assert_eq!(result, Err(ProtectError::HypervisorMemory));
            return Ok(());
        }
        for page in start..end {
            self.set[view][usize::try_from(page).unwrap_or(0)] = what;
        }
        match result {
            Ok(flush) => self.flush(flush),
            Err(error) => prop_assert!(false, "{error:?}"),
        }
        Ok(())
    }

    fn access(&mut self, view: usize, page: u64, access: Rights) -> Result<(), TestCaseError> {
        let index = usize::try_from(page).unwrap_or(0);
        let address = gpa(WINDOW + page * PAGE_SIZE);
        let truth = self.truth(view, index);
        match self.memory.violation(CPU_VIEWS[view], address, access) {
            Resolution::Filled => {
                prop_assert!(truth.is_some_and(|t| t.rights.contains(access)));
                let mapped = self.memory.mapped(CPU_VIEWS[view], address).map(|m| m.2);
                prop_assert_eq!(mapped, truth);
                self.cached[view][index] = truth;
            }
            Resolution::Noticed(flush) | Resolution::Reclaimed(flush) => {
                self.flush(flush);
                prop_assert_eq!(self.memory.violation(CPU_VIEWS[view], address, access), Resolution::Filled);
            }
            Resolution::Protected(rights) => {
                prop_assert_eq!(truth.map(|t| t.rights), Some(rights));
                prop_assert!(!rights.contains(access));
            }
            Resolution::Hidden => prop_assert_eq!(truth, None),
            Resolution::Guarded => prop_assert!(false, "no page is guarded"),
        }
        Ok(())
    }

    /// Tables say the truth or nothing; a processor that saw them before is never told too much.
    fn check(&mut self) -> Result<(), TestCaseError> {
        for (view, name) in CPU_VIEWS.into_iter().enumerate() {
            for page in (0..self.set[0].len()).step_by(SAMPLE_STEP) {
                let truth = self.truth(view, page);
                let address = WINDOW + page as u64 * PAGE_SIZE;
                let allowance = self.memory.policy().allowance_at(name, address);
                prop_assert_eq!(
                    allowance,
                    truth.map(|t| (t.rights, t.is_decoy)),
                    "view {} page {}",
                    view,
                    page
                );
                let found = self.memory.mapped(name, gpa(address));
                prop_assert!(found.is_none() || found.map(|m| m.2) == truth, "view {view} page {page}");
                let cached = &mut self.cached[view][page];
                let is_true = cached.is_none_or(|c| {
                    truth.is_some_and(|t| {
                        t.memory_type == c.memory_type
                            && t.is_decoy == c.is_decoy
                            && t.rights.contains(c.rights)
                    })
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
        let mut fixture = Fixture::new(largest, frames);
        for event in &events {
            fixture.happen(event)?;
        }
    }
}
