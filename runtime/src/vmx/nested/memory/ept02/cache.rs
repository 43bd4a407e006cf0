//! The cache of L1's extended page tables: one root for each EPT pointer that L1 uses, for all CPUs.
//!
//! INVEPT concerns one processor, this cache serves all. That is right, because what the cache loses a processor
//! may lose at any time, and what it keeps no processor was promised to be rid of:
//!
//! - A CPU that executes INVEPT drops the tables here, and its own translations in hardware. What it finds
//!   afterwards was read from L1's tables afterwards: a CPU that had read them before the drop and comes to
//!   fill after it finds [`Ept02::generation`] changed, and drops what it read.
//! - Another CPU may go on with dropped tables, which keep their content until it has flushed: the manual lets
//!   it, until it executes INVEPT itself.
//! - An EPT violation for L1 drops the page of its address, as it does in a processor's caches.
//! - A root's frame stays as long as a CPU is on it: a CPU that last entered L2 with it keeps it from being the
//!   least recently used.

mod reclaim;

use super::pool::{Frame, Place, Pool};
use super::tables::{Exhausted, Tables};
use crate::memory::range::GuestRange;
use crate::memory::views::View;
use hw::PhysMemory;
use platform::handoff::CPU_CAPACITY;
use x86::address::{GuestPhysAddr, HostPhysAddr};
use x86::paging::PageSize;
use x86::vmx::ept::EptPointer;

const NO_ROOT: u16 = u16::MAX;

/// What a root is the cache of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    /// Root of L1's tables.
    table: HostPhysAddr,
    has_flags: bool,
    /// Whose protections hold.
    view: View,
}

/// A place for a root.
#[derive(Clone, Copy, Debug)]
pub(in crate::vmx) struct Root {
    /// `None` where the place is empty.
    key: Option<Key>,
    frame: HostPhysAddr,
    /// Time of the last use.
    used: u64,
    /// Something was filled since it was made or dropped.
    is_filled: bool,
}

/// Which of L1's tables INVEPT names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::vmx) enum Named {
    /// Those of one EPT pointer.
    Single(EptPointer),
    /// All.
    All,
}

/// The cache.
#[derive(Debug)]
pub(in crate::vmx) struct Ept02<M> {
    tables: Tables<M>,
    roots: &'static mut [Root],
    /// The root that each CPU last entered L2 with.
    active: [u16; CPU_CAPACITY],
    clock: u64,
    generation: u64,
    /// Frame at which the next search for tables to drop begins.
    hand: usize,
    largest_page: PageSize,
}

impl Root {
    /// An empty place.
    pub(in crate::vmx) const EMPTY: Self =
        Self { key: None, frame: HostPhysAddr::new(0), used: 0, is_filled: false };
}

impl<M: PhysMemory> Ept02<M> {
    /// Makes a cache of as many roots as `roots` has places, more than there are CPUs, in the memory from `base` on, of
    /// as many frames as `frames` has places.
    pub(in crate::vmx) fn new(
        memory: M,
        base: HostPhysAddr,
        frames: &'static mut [Frame],
        roots: &'static mut [Root],
        largest_page: PageSize,
    ) -> Self {
        roots.fill(Root::EMPTY);
        Self {
            tables: Tables { memory, pool: Pool::new(base, frames) },
            roots,
            active: [NO_ROOT; CPU_CAPACITY],
            clock: 0,
            generation: 0,
            hand: 0,
            largest_page,
        }
    }

    /// Returns the EPT pointer for CPU `cpu` to run L2 with, for L1's `pointer`, under the protections of `view`. It
    /// holds until the CPU comes with another.
    pub(in crate::vmx) fn enter(
        &mut self,
        cpu: usize,
        pointer: EptPointer,
        view: View,
    ) -> Result<EptPointer, Exhausted> {
        let has_flags = pointer.has_accessed_dirty();
        let key = Key { table: pointer.root(), has_flags, view };
        if self.active_root(cpu).is_none_or(|root| root.key != Some(key)) {
            let index = self.place_of(key)?;
            self.clock += 1;
            self.roots[index].used = self.clock;
            self.active[cpu] = u16::try_from(index).unwrap_or(NO_ROOT);
        }
        let frame = self.active_root(cpu).map_or(HostPhysAddr::default(), |root| root.frame);
        Ok(EptPointer::new(frame).with_accessed_dirty(has_flags))
    }

    /// Whose protections CPU `cpu` runs L2 under, and the root that it runs it with.
    pub(super) fn current(&self, cpu: usize) -> Option<(View, HostPhysAddr)> {
        self.active_root(cpu).and_then(|root| Some((root.key?.view, root.frame)))
    }

    /// Returns the same, for a page that is about to be filled.
    pub(super) fn fill(&mut self, cpu: usize) -> Option<(View, HostPhysAddr)> {
        let root = self.roots.get_mut(usize::from(*self.active.get(cpu)?))?;
        let view = root.key?.view;
        root.is_filled = true;
        Some((view, root.frame))
    }

    /// Changes when what was read from L1's tables before must not be filled any more.
    pub(super) const fn generation(&self) -> u64 {
        self.generation
    }

    pub(super) const fn tables(&mut self) -> &mut Tables<M> {
        &mut self.tables
    }

    pub(super) const fn largest_page(&self) -> PageSize {
        self.largest_page
    }

    /// L1 learns that it forbids an access at `gpa`: what the cache holds for it is no longer true.
    pub(super) fn violate(&mut self, cpu: usize, gpa: GuestPhysAddr) {
        // A CPU that read the entry before L1 was told must not fill it afterwards.
        self.generation += 1;
        if let Some((_, frame)) = self.current(cpu) {
            self.tables.unmap(frame, gpa.get());
        }
    }

    /// Drops what INVEPT names, and calls `act` with each EPT pointer whose translations the executing CPU must
    /// drop too.
    pub(in crate::vmx) fn invalidate(&mut self, named: Named, mut act: impl FnMut(EptPointer)) {
        // Counted even where nothing is dropped below: a CPU may be about to fill what it has just read.
        self.generation += 1;
        for root in self.roots.iter_mut() {
            let Some(key) = root.key else { continue };
            if matches!(named, Named::Single(pointer) if pointer.root() != key.table) {
                continue;
            }
            if core::mem::take(&mut root.is_filled) {
                self.tables.clear(root.frame, 4);
            }
            // Where nothing was filled too: another CPU may have dropped the tables, which does not rid this one of
            // what it cached.
            act(EptPointer::new(root.frame).with_accessed_dirty(key.has_flags));
        }
    }

    /// Drops the pages of `range` of L1's memory, and all decoys beside them, for CPUs under the protections of
    /// `view`, or those of all. A flush of all CPUs must follow.
    pub(in crate::vmx) fn forget(&mut self, view: View, range: GuestRange, decoy: HostPhysAddr) {
        for index in 0..self.tables.pool.reach() {
            let Some((frame, table)) = self.tables.pool.table_at(index) else { continue };
            let is_concerned = view == View::SHARED || self.view_of(table.root) == Some(view);
            if is_concerned && table.may_map(range.start(), range.end()) {
                self.tables.drop_pages(frame, table.level, range.start(), range.end());
                // An entry for the decoy does not say which page it stands in for, so that all of them go.
                self.tables.drop_pages(frame, table.level, decoy.get(), decoy.get() + 1);
            }
        }
    }

    /// Frames in use, or waiting for a flush.
    #[cfg(test)]
    pub(in crate::vmx) const fn frames_in_use(&self) -> usize {
        self.tables.pool.len() - self.tables.pool.available()
    }

    fn active_root(&self, cpu: usize) -> Option<&Root> {
        self.roots.get(usize::from(*self.active.get(cpu)?))
    }

    fn view_of(&self, root: u16) -> Option<View> {
        self.roots.get(usize::from(root)).and_then(|root| root.key).map(|key| key.view)
    }

    /// Returns where the root for `key` is, or is made.
    fn place_of(&mut self, key: Key) -> Result<usize, Exhausted> {
        if let Some(index) = self.roots.iter().position(|root| root.key == Some(key)) {
            return Ok(index);
        }
        let empty = self.roots.iter().position(|root| root.key.is_none());
        let index = empty.or_else(|| self.least_recently_used()).ok_or(Exhausted)?;
        // Emptied before a frame is asked for: where there is none, the caller reclaims, and finds an empty place.
        self.evict(index);
        let place = Place::Root(u16::try_from(index).unwrap_or(NO_ROOT));
        let frame = self.tables.pool.take(&self.tables.memory, place).ok_or(Exhausted)?;
        self.roots[index] = Root { key: Some(key), frame, used: self.clock, is_filled: false };
        Ok(index)
    }
}

impl<M: PhysMemory> Ept02<M> {
    /// Returns what CPU `cpu` has for `gpa`: where the page's entry leads, and the entry.
    #[cfg(test)]
    pub(super) fn cached(&self, cpu: usize, gpa: u64) -> Option<(u64, x86::vmx::ept_entry::EptEntry)> {
        let (_, entry, level) = self.tables.find(self.current(cpu)?.1, gpa)?;
        let offset = gpa & (x86::paging::entry_bytes(level) - 1);
        Some(((entry.address(PageSize::Size4K) & !(x86::paging::entry_bytes(level) - 1)) + offset, entry))
    }
}
