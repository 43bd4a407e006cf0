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

mod changes;
mod recency;
mod reclaim;

use self::recency::{Neighbours, Recency};
use super::filter::Filter;
use super::pool::{Frame, Place, Pool};
use super::tables::{Exhausted, Tables};
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
    /// CPUs that are on it.
    users: u16,
    /// Where it is in the order of use; in no order where the place is empty.
    neighbours: Neighbours,
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
    recency: Recency,
    generation: u64,
    /// Frame at which the next search for tables to drop begins.
    hand: usize,
    largest_page: PageSize,
}

impl Root {
    /// An empty place.
    pub(in crate::vmx) const EMPTY: Self = Self::new(None, HostPhysAddr::new(0));

    const fn new(key: Option<Key>, frame: HostPhysAddr) -> Self {
        Self { key, frame, users: 0, neighbours: Neighbours::NONE, is_filled: false }
    }
}

impl<M: PhysMemory> Ept02<M> {
    /// Makes a cache of as many roots as `roots` has places, more than there are CPUs, in the memory from `base` on, of
    /// as many frames as `frames` has places. The more `words` there are, the fewer pages are searched for in vain.
    pub(in crate::vmx) fn new(
        memory: M,
        base: HostPhysAddr,
        frames: &'static mut [Frame],
        roots: &'static mut [Root],
        words: &'static mut [u64],
        largest_page: PageSize,
    ) -> Self {
        roots.fill(Root::EMPTY);
        Self {
            tables: Tables { memory, pool: Pool::new(base, frames), filter: Filter::new(words) },
            roots,
            active: [NO_ROOT; CPU_CAPACITY],
            recency: Recency::EMPTY,
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
            self.recency.remove(self.roots, index);
            self.recency.add(self.roots, index);
            self.leave_root(cpu);
            self.roots[usize::from(index)].users += 1;
            self.active[cpu] = index;
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
    pub(in crate::vmx) fn invalidate(&mut self, named: Named, act: impl FnMut(EptPointer)) {
        // Counted even where nothing is dropped below: a CPU may be about to fill what it has just read.
        self.generation += 1;
        self.drop_roots(
            |key| !matches!(named, Named::Single(pointer) if pointer.root() != key.table),
            // Where nothing was filled too: another CPU may have dropped the tables, which does not rid this one of
            // what it cached.
            act,
        );
    }

    /// CPU `cpu` left VMX operation; when the last one did, nothing is kept.
    pub(in crate::vmx) fn leave(&mut self, cpu: usize) {
        self.leave_root(cpu);
        if self.roots.iter().all(|root| root.users == 0) {
            (0..self.roots.len()).for_each(|index| self.evict(index));
        }
    }

    /// Drops the tables of the roots that `is_named` names, and calls `act` with the EPT pointer of each.
    fn drop_roots(&mut self, is_named: impl Fn(&Key) -> bool, mut act: impl FnMut(EptPointer)) {
        for index in 0..self.roots.len() {
            let Root { key, frame, users, is_filled, .. } = self.roots[index];
            let Some(key) = key.filter(|key| is_named(key)) else { continue };
            if is_filled && users == 0 {
                self.evict(index);
            } else if is_filled {
                self.roots[index].is_filled = false;
                self.tables.clear_root(frame);
            }
            act(EptPointer::new(frame).with_accessed_dirty(key.has_flags));
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

    fn leave_root(&mut self, cpu: usize) {
        let left = core::mem::replace(&mut self.active[cpu], NO_ROOT);
        if let Some(root) = self.roots.get_mut(usize::from(left)) {
            root.users -= 1;
        }
    }

    /// Returns where the root for `key` is, or is made.
    fn place_of(&mut self, key: Key) -> Result<u16, Exhausted> {
        let number = |index| u16::try_from(index).unwrap_or(NO_ROOT);
        if let Some(index) = self.roots.iter().position(|root| root.key == Some(key)) {
            return Ok(number(index));
        }
        let empty = self.roots.iter().position(|root| root.key.is_none()).map(number);
        let index = empty.or_else(|| self.recency.least_recently_used(self.roots)).ok_or(Exhausted)?;
        // Emptied before a frame is asked for: where there is none, the caller reclaims, and finds an empty place.
        self.evict(usize::from(index));
        let frame = self.tables.pool.take(&self.tables.memory, Place::Root(index)).ok_or(Exhausted)?;
        self.roots[usize::from(index)] = Root::new(Some(key), frame);
        self.recency.add(self.roots, index);
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
