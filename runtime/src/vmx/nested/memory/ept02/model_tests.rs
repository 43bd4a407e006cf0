//! The cache and two processors' translations against a walk of both tables in two steps.
//!
//! The model keeps, for each CPU, pointer and page, what L1's entries said since the CPU last had to forget it.
//! An access that succeeds does so by one of them; one that does not, by what they say now.

use super::access::Outcome;
use super::cache::Named;
use super::fixture::{FETCH, Fixture, READ, REGION, RWX, WB, WRITE, eptp};
use crate::memory::range::GuestRange;
use crate::memory::views::View;
use hw::sim::SimMemory;
use proptest::prelude::*;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use x86::address::GuestPhysAddr;
use x86::paging::PAGE_SIZE;
use x86::paging::{PageSize, Rights};
use x86::vmx::ept::EptPointer;
use x86::vmx::ept_entry::EptEntry;

const CPUS: usize = 2;
const PAGES: u64 = 20;
/// Where the pages lie in L2, and the roots of L1's tables, each with the tables of the lower levels behind it.
const BASE: u64 = 7 << 30 | 3 << 21;
const TABLES: [u64; 2] = [0x1000, 0x9000];
/// Pages of L1's memory that entries lead to; the fourth is the hypervisor's.
const TARGETS: [u64; 5] = [0x20_0000, 0x20_1000, 0x40_3000, REGION.base, 0x80_0000];
const A: u64 = EptEntry::ACCESSED;
const D: u64 = EptEntry::DIRTY;
const LARGE: u64 = 0x80;

/// L1's EPT pointers: the first two have tables in common.
fn pointers() -> [EptPointer; 3] {
    let [first, second] = TABLES.map(eptp);
    [first, first.with_accessed_dirty(true), second]
}

#[derive(Clone, Debug)]
enum Event {
    /// A CPU enters L2 with a pointer and accesses a page; another change and INVEPT may come between.
    Access {
        cpu: usize,
        pointer: usize,
        page: u64,
        access: u64,
        between: Option<Change>,
    },
    Set(Change),
    Invept {
        cpu: usize,
        pointer: Option<usize>,
    },
    Protect {
        target: usize,
        rights: Rights,
    },
    Reclaim,
}

/// L1 changes its entry for a page, or the one above it of the whole block; a CPU then executes INVEPT.
#[derive(Clone, Debug)]
struct Change {
    table: usize,
    page: Option<u64>,
    entry: u64,
    invept: Option<usize>,
}

/// What L1's entries say of a page: the entry of level 2, and that of level 1 where the first references a table.
type Said = (u64, u64);

fn any_entry() -> impl Strategy<Value = u64> {
    let rights = prop::sample::select(vec![1_u64, 3, 4, 5, 7, 7, 7]);
    let flags = prop::sample::select(vec![0, A, A | D, A | D]);
    let sound = (prop::sample::select(TARGETS.to_vec()), rights, flags).prop_map(|(t, r, f)| t | r | f | WB);
    prop_oneof![8 => sound, 1 => Just(0), 1 => Just(0x20_0002), 1 => Just(0x20_0017)]
}

fn any_upper(table: usize) -> impl Strategy<Value = u64> {
    let link = prop::sample::select(vec![RWX, RWX, RWX, 1, 5])
        .prop_map(move |r| (TABLES[table] + 3 * PAGE_SIZE) | r);
    let large = prop::sample::select(vec![0x20_0000, 0x80_0000, REGION.base]);
    let page = (large, prop::sample::select(vec![0, A, A | D])).prop_map(|(at, f)| at | LARGE | WB | RWX | f);
    prop_oneof![3 => link, 1 => page, 1 => Just(0)]
}

fn any_change() -> impl Strategy<Value = Change> {
    let invept = prop::option::of(0..CPUS);
    let lower = (0_usize..2, 0..PAGES, any_entry(), invept.clone())
        .prop_map(|(table, page, entry, invept)| Change { table, page: Some(page), entry, invept });
    let upper = (0_usize..2).prop_flat_map(|table| (Just(table), any_upper(table)));
    let upper =
        (upper, invept).prop_map(|((table, entry), invept)| Change { table, page: None, entry, invept });
    prop_oneof![5 => lower, 1 => upper]
}

fn any_event() -> impl Strategy<Value = Event> {
    let access = prop::sample::select(vec![READ, WRITE, FETCH, READ | WRITE]);
    let between = prop::option::weighted(0.1, any_change());
    let rights = prop::sample::select(vec![Rights::all(), Rights::READ, Rights::empty()]);
    prop_oneof![
        12 => (0..CPUS, 0_usize..3, 0..PAGES, access, between).prop_map(
            |(cpu, pointer, page, access, between)| Event::Access { cpu, pointer, page, access, between }
        ),
        5 => any_change().prop_map(Event::Set),
        2 => (0..CPUS, prop::option::weighted(0.7, 0_usize..3))
            .prop_map(|(cpu, pointer)| Event::Invept { cpu, pointer }),
        1 => (0_usize..TARGETS.len(), rights).prop_map(|(target, rights)| Event::Protect { target, rights }),
        1 => Just(Event::Reclaim),
    ]
}

/// The cache, the processors' own translations, and the model.
struct Trial<'a> {
    fixture: Fixture<'a>,
    /// By CPU, EPT pointer in use and page: where it leads, with which rights.
    translations: BTreeMap<(usize, u64, u64), (u64, Rights)>,
    said: [[Vec<Vec<Said>>; 3]; CPUS],
}

impl<'a> Trial<'a> {
    fn new(memory: &'a SimMemory, frames: usize, largest_page: PageSize) -> Self {
        let fixture = Fixture::new(memory, frames, CPUS + 1, largest_page);
        for table in TABLES {
            fixture.map(eptp(table), BASE, 0, PageSize::Size4K);
        }
        let mut trial = Self { fixture, translations: BTreeMap::new(), said: Default::default() };
        for (cpu, pointer) in (0..CPUS).flat_map(|cpu| (0..3).map(move |pointer| (cpu, pointer))) {
            trial.said[cpu][pointer] = (0..PAGES).map(|page| vec![trial.now(pointer, page)]).collect();
        }
        trial
    }

    fn now(&self, pointer: usize, page: u64) -> Said {
        now(&self.fixture, pointer, page)
    }

    /// Notes what every CPU may come upon from now on.
    fn note(&mut self) {
        let now = everything(&self.fixture);
        self.note_all(&now);
    }

    fn note_all(&mut self, all: &[(usize, u64, Said)]) {
        for &(pointer, page, said) in all {
            (0..CPUS).for_each(|cpu| self.said[cpu][pointer][index(page)].push(said));
        }
    }

    fn apply(&mut self, change: &Change) {
        put(&self.fixture, change);
        self.note();
        if let Some(cpu) = change.invept {
            self.invept(cpu, Some(2 * change.table));
        }
    }

    /// INVEPT, single-context where a pointer is named.
    fn invept(&mut self, cpu: usize, pointer: Option<usize>) {
        let named = pointer.map_or(Named::All, |pointer| Named::Single(pointers()[pointer]));
        let mut hit = Vec::new();
        self.fixture.cache.borrow_mut().invalidate(named, |pointer| hit.push(pointer));
        self.translations.retain(|key, _| key.0 != cpu || hit.iter().all(|pointer| pointer.0 != key.1));
        self.forget_said(cpu, pointer);
    }

    fn forget_said(&mut self, cpu: usize, pointer: Option<usize>) {
        for other in (0..3).filter(|other| pointer.is_none_or(|pointer| pointer / 2 == other / 2)) {
            for page in 0..PAGES {
                self.said[cpu][other][index(page)] = vec![self.now(other, page)];
            }
        }
    }

    fn reclaim(&mut self) {
        let dropped = self.fixture.cache.borrow_mut().reclaim();
        self.translations.clear();
        self.fixture.cache.borrow_mut().flushed(dropped);
    }

    fn happen(&mut self, event: &Event) -> Result<(), TestCaseError> {
        match event {
            Event::Set(change) => self.apply(change),
            Event::Invept { cpu, pointer } => self.invept(*cpu, *pointer),
            Event::Reclaim => self.reclaim(),
            Event::Protect { target, rights } => {
                let range = GuestRange::page(GuestPhysAddr::new(TARGETS[*target]));
                if !self.fixture.second_level.borrow().policy().is_hidden(range) {
                    self.fixture.protect(View::SHARED, range, *rights);
                    self.translations.clear();
                }
            }
            Event::Access { cpu, pointer, page, access, between } => {
                self.access(*cpu, *pointer, *page, *access, between.as_ref())?;
            }
        }
        Ok(())
    }

    fn enter(&mut self, cpu: usize, pointer: usize) -> EptPointer {
        loop {
            let entered = self.fixture.cache.borrow_mut().enter(cpu, pointers()[pointer], View::SHARED);
            match entered {
                Ok(pointer) => return pointer,
                Err(_) => self.reclaim(),
            }
        }
    }

    /// A processor's access: by its own translation, else by the tables, else by a fault.
    fn access(
        &mut self,
        cpu: usize,
        pointer: usize,
        page: u64,
        access: u64,
        mut between: Option<&Change>,
    ) -> Result<(), TestCaseError> {
        let gpa = BASE + page * PAGE_SIZE;
        let needed = Rights::from_bits_truncate((access & 7).to_le_bytes()[0]);
        for _ in 0..8 {
            let entered = self.enter(cpu, pointer);
            let key = (cpu, entered.0, page);
            let found = self.fixture.cached(cpu, gpa).map(|(at, entry)| (at, entry.rights()));
            let known = self.translations.get(&key).copied().filter(|known| known.1.contains(needed));
            if let Some(found) = known.or(found.filter(|found| found.1.contains(needed))) {
                self.translations.insert(key, found);
                return self.check_success(cpu, pointer, page, needed, found);
            }
            self.translations.remove(&key);
            let before = self.now(pointer, page);
            let outcome = self.fault(cpu, pointer, gpa, access, between.take());
            match outcome {
                Outcome::Mapped => {}
                Outcome::Exhausted => self.reclaim(),
                failed => {
                    prop_assert_eq!(failed, self.verdict(before, pointer, page, access).unwrap_err());
                    if matches!(failed, Outcome::Violation { .. }) {
                        let now = self.now(pointer, page);
                        self.said[cpu][pointer][index(page)] = vec![now];
                        prop_assert!(self.fixture.cached(cpu, gpa).is_none());
                    }
                    return Ok(());
                }
            }
        }
        prop_assert!(false, "no progress");
        Ok(())
    }

    fn fault(
        &mut self,
        cpu: usize,
        pointer: usize,
        gpa: u64,
        access: u64,
        between: Option<&Change>,
    ) -> Outcome {
        let hit = Rc::new(RefCell::new(Vec::new()));
        let earlier = Rc::new(RefCell::new(Vec::new()));
        if let Some(change) = between.cloned() {
            let (hit, earlier) = (hit.clone(), earlier.clone());
            self.fixture.between.replace(Some(Box::new(move |fixture| {
                // The flags that the walk has set.
                *earlier.borrow_mut() = everything(fixture);
                put(fixture, &change);
                if change.invept.is_some() {
                    let named = Named::Single(eptp(TABLES[change.table]));
                    fixture.cache.borrow_mut().invalidate(named, |pointer| hit.borrow_mut().push(pointer.0));
                }
            })));
        }
        let outcome = self.fixture.access(cpu, pointers()[pointer], gpa, access);
        // Flags that were set, and the change between, are news to every CPU.
        self.note_all(&earlier.borrow());
        self.note();
        if let (Some(change), None) = (between, self.fixture.between.take())
            && let Some(other) = change.invept
        {
            self.translations.retain(|key, _| key.0 != other || !hit.borrow().contains(&key.1));
            self.forget_said(other, Some(2 * change.table));
        }
        outcome
    }

    fn check_success(
        &self,
        cpu: usize,
        pointer: usize,
        page: u64,
        needed: Rights,
        found: (u64, Rights),
    ) -> Result<(), TestCaseError> {
        let has_flags = pointers()[pointer].has_accessed_dirty();
        let said = &self.said[cpu][pointer][index(page)];
        let access = 0x180 | u64::from(needed.bits());
        let is_right = said.iter().any(|said| {
            let leaf = EptEntry(if said.0 & LARGE != 0 { said.0 } else { said.1 });
            let is_marked = leaf.is_accessed() && (leaf.is_dirty() || !found.1.contains(Rights::WRITE));
            self.verdict(*said, pointer, page, access) == Ok(found.0) && (!has_flags || is_marked)
        });
        prop_assert!(is_right, "cpu {cpu} pointer {pointer} page {page}: {found:x?} of {said:x?}");
        Ok(())
    }

    /// The walk in two steps: where the page lies in the machine's memory, or what the access comes to.
    fn verdict(&self, said: Said, pointer: usize, page: u64, access: u64) -> Result<u64, Outcome> {
        let violation = |rights: u64| Outcome::Violation { qualification: access | rights << 3 };
        let is_wrong = |entry: u64| entry & 3 == 2 || entry & 0x38 == 0x10;
        let (upper, lower) = said;
        let (rights, target) = match (upper & 7, upper & LARGE) {
            (0, _) => return Err(violation(0)),
            (_, 0) if lower & 7 == 0 => return Err(violation(0)),
            (_, 0) if is_wrong(lower) => return Err(Outcome::Misconfiguration),
            (given, 0) => (given & lower & 7, lower & !0xfff),
            (given, _) => (given, (upper & !0x1f_ffff) + page * PAGE_SIZE),
        };
        if rights & access & 7 != access & 7 {
            return Err(violation(rights));
        }
        assert!(pointer < 3);
        let needed = Rights::from_bits_truncate((access & 7).to_le_bytes()[0]);
        let second_level = self.fixture.second_level.borrow();
        let given = second_level.rights(View::SHARED, GuestPhysAddr::new(target));
        if given.is_empty() || !given.contains(needed) {
            return Err(Outcome::Ept01(GuestPhysAddr::new(target)));
        }
        Ok(target)
    }
}

/// What L1's entries say now.
fn now(fixture: &Fixture<'_>, pointer: usize, page: u64) -> Said {
    let table = TABLES[pointer / 2];
    (fixture.l1.get_u64(upper_slot(table)), fixture.l1.get_u64(lower_slot(table, page)))
}

/// The same, of all pointers and pages.
fn everything(fixture: &Fixture<'_>) -> Vec<(usize, u64, Said)> {
    let places = (0..3).flat_map(|pointer| (0..PAGES).map(move |page| (pointer, page)));
    places.map(|(pointer, page)| (pointer, page, now(fixture, pointer, page))).collect()
}

fn put(fixture: &Fixture<'_>, change: &Change) {
    let table = TABLES[change.table];
    let at = change.page.map_or(upper_slot(table), |page| lower_slot(table, page));
    fixture.l1.put_u64(at, change.entry);
}

fn upper_slot(table: u64) -> u64 {
    table + 2 * PAGE_SIZE + 8 * 3
}

fn lower_slot(table: u64, page: u64) -> u64 {
    table + 3 * PAGE_SIZE + 8 * page
}

fn index(page: u64) -> usize {
    usize::try_from(page).unwrap_or(0)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn stale_translations_every_access_agrees_with_both_tables(
        largest in prop::sample::select(vec![PageSize::Size4K, PageSize::Size2M, PageSize::Size1G]),
        frames in prop::sample::select(vec![8_usize, 10, 16, 64]),
        events in prop::collection::vec(any_event(), 1..120),
    ) {
        let memory = SimMemory::new(0xff);
        let mut trial = Trial::new(&memory, frames, largest);
        for event in &events {
            trial.happen(event)?;
        }
    }
}
