//! A machine of fakes: L1's memory, the policy, the cache.

use super::access::{Access, Outcome, Shared};
use super::cache::{Ept02, Root};
use super::pool::Frame;
use crate::memory::flush::Flush;
use crate::memory::guest::fake::FakeMemory;
use crate::memory::policy::{MemoryFacts, Policy};
use crate::memory::range::GuestRange;
use crate::memory::second_level::{ProtectError, RESERVE, SecondLevel};
use crate::memory::views::View;
use crate::vmx::nested::memory::ept12::{Ept12, PageModificationLog};
use core::cell::RefCell;
use hw::sim::SimMemory;
use platform::handoff::PhysRange;
use platform::mtrr_map::Mtrrs;
use x86::address::{GuestPhysAddr, HostPhysAddr, MIB};
use x86::paging::PAGE_SIZE;
use x86::paging::{PageSize, Rights};
use x86::vmx::ept::{EptFormat, EptPointer};
use x86::vmx::ept_entry::{EptEntry, EptFeatures};

/// The hypervisor's memory.
pub(super) const REGION: PhysRange = PhysRange { base: 64 * MIB, length: 8 * MIB };
/// The pool of the cache, in it.
const POOL: u64 = REGION.base + 4 * MIB;
const FEATURES: EptFeatures = EptFeatures {
    has_execute_only: true,
    has_2mib_pages: true,
    has_1gib_pages: true,
    physical_address_bits: 39,
};
pub(super) const WB: u64 = 6 << 3;
pub(super) const RWX: u64 = 7;
/// Exit qualifications of accesses through a linear address.
pub(super) const READ: u64 = 0x181;
pub(super) const WRITE: u64 = 0x182;
pub(super) const FETCH: u64 = 0x184;

type Between<'a> = Box<dyn FnOnce(&Fixture<'a>) + 'a>;
pub(super) type Level<'a> = SecondLevel<&'a SimMemory, EptFormat>;

/// A machine: its memory, the policy, L1's memory and the cache.
pub(super) struct Fixture<'a> {
    pub(super) l1: FakeMemory,
    pub(super) second_level: RefCell<Level<'a>>,
    pub(super) cache: RefCell<Ept02<&'a SimMemory>>,
    /// Called between the walk and the fill.
    pub(super) between: RefCell<Option<Between<'a>>>,
    calls: RefCell<usize>,
}

impl<'a> Shared for Fixture<'a> {
    type Memory = &'a SimMemory;

    fn with<T>(&self, act: impl FnOnce(&Policy, &mut Ept02<&'a SimMemory>) -> T) -> T {
        *self.calls.borrow_mut() += 1;
        let between = if *self.calls.borrow() == 2 { self.between.borrow_mut().take() } else { None };
        if let Some(between) = between {
            between(self);
        }
        act(self.second_level.borrow().policy(), &mut self.cache.borrow_mut())
    }
}

impl<'a> Fixture<'a> {
    pub(super) fn new(memory: &'a SimMemory, frames: usize, roots: usize, largest_page: PageSize) -> Self {
        let mut second_level = SecondLevel::new(memory);
        let base = HostPhysAddr::new(REGION.base + MIB);
        assert_eq!(second_level.frames().add(base, RESERVE as u64 * PAGE_SIZE), Ok(()));
        let machine = MemoryFacts {
            region: REGION,
            memory_map: &[],
            physical_address_bits: 39,
            largest_page: PageSize::Size1G,
            has_execute_only: true,
            mtrrs: Mtrrs::disabled(39),
        };
        assert_eq!(second_level.start(&machine), Ok(()));
        let frames = Box::leak(vec![Frame::NEW; frames].into_boxed_slice());
        let roots = Box::leak(vec![Root::EMPTY; roots].into_boxed_slice());
        let words = Box::leak(vec![u64::MAX; 64].into_boxed_slice());
        let cache = Ept02::new(memory, HostPhysAddr::new(POOL), frames, roots, words, largest_page);
        Self {
            l1: FakeMemory::new(0x4_0000),
            second_level: RefCell::new(second_level),
            cache: RefCell::new(cache),
            between: RefCell::new(None),
            calls: RefCell::new(0),
        }
    }

    /// Maps `gpa` to `page` in L1's tables, four levels from 0x1000 on and `root` bytes further.
    pub(super) fn map(&self, pointer: EptPointer, gpa: u64, entry: u64, size: PageSize) {
        let mut table = pointer.root().get();
        for level in (size.level() + 1..=4).rev() {
            let at = table + 8 * x86::paging::index(gpa, level) as u64;
            table += PAGE_SIZE;
            self.l1.put_u64(at, table | RWX);
        }
        self.l1.put_u64(table + 8 * x86::paging::index(gpa, size.level()) as u64, entry);
    }

    pub(super) fn enter(&self, cpu: usize, pointer: EptPointer) -> EptPointer {
        for _ in 0..2 {
            let entered = self.cache.borrow_mut().enter(cpu, pointer, View::SHARED);
            if let Ok(pointer) = entered {
                return pointer;
            }
            self.reclaim();
        }
        panic!("no root after a reclaim");
    }

    pub(super) fn reclaim(&self) {
        let dropped = self.cache.borrow_mut().reclaim();
        self.cache.borrow_mut().flushed(dropped);
    }

    pub(super) fn access(&self, cpu: usize, pointer: EptPointer, gpa: u64, qualification: u64) -> Outcome {
        self.access_and_log(cpu, pointer, gpa, qualification, None)
    }

    pub(super) fn access_and_log(
        &self,
        cpu: usize,
        pointer: EptPointer,
        gpa: u64,
        qualification: u64,
        log: Option<&mut PageModificationLog>,
    ) -> Outcome {
        *self.calls.borrow_mut() = 0;
        let ept12 = Ept12 { memory: &self.l1, pointer, features: &FEATURES };
        Access { gpa: GuestPhysAddr::new(gpa), qualification }.serve(self, cpu, &ept12, log)
    }

    pub(super) fn cached(&self, cpu: usize, gpa: u64) -> Option<(u64, EptEntry)> {
        self.cache.borrow().cached(cpu, gpa)
    }

    /// Changes what the guest may do, as a hypapp does.
    pub(super) fn protect(&self, view: View, range: GuestRange, rights: Rights) {
        self.change(|second_level| second_level.set_rights(view, range, rights));
    }

    /// Carries a change of the policy out.
    pub(super) fn change(&self, change: impl FnOnce(&mut Level<'a>) -> Result<Flush, ProtectError>) {
        let result = change(&mut self.second_level.borrow_mut());
        let Ok(flush) = result else { panic!("{result:?}") };
        self.second_level.borrow_mut().flushed(flush);
        let changes = self.second_level.borrow_mut().take_changes();
        let decoy = self.second_level.borrow().policy().decoy();
        self.cache.borrow_mut().forget(&changes, decoy);
    }
}

pub(super) fn eptp(root: u64) -> EptPointer {
    EptPointer::new(HostPhysAddr::new(root))
}
