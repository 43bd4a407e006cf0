//! The guest's physical memory as its processors see it: policy, tables and frames together.
//!
//! [`SecondLevel`] lives in one static behind a lock; before [`SecondLevel::start`] it is all zero. What must
//! happen outside the lock, it returns as a [`Flush`].

use core::marker::PhantomData;

use hw::PhysMemory;
use platform::mtrr_map::Mtrrs;
use x86::address::{GuestPhysAddr, HostPhysAddr};
use x86::paging::{Attributes, PageSize, Rights, TableFormat};

use super::changes::Changes;
use super::flush::{Flush, Generations, Needed};
use super::frame::{Exhausted, Frames};
use super::policy::{MemoryFacts, Policy};
use super::protect::{Full, Protection};
use super::radix::{Radix, translate};
use super::range::{GuestRange, Unaligned};
use super::root::TableRoot;
use super::views::{Roots, View};

/// Frames that must be free at the start, so that a miss can always be served once tables were dropped.
pub const RESERVE: usize = 64;

/// Tables up to which a change of memory types is made in each entry: far below 100,000 ticks.
const FEW_TABLES: usize = 8;

/// Runs that one operation goes through before it takes the rest in one piece.
pub(super) const STEPS: usize = 256;

/// What became of an access that the tables did not allow.
#[derive(Debug, PartialEq, Eq)]
pub enum Resolution {
    /// The tables allow it now.
    Filled,
    /// A write that ends a watch: behind the flush, at which every CPU looks after what it keeps of the page, it is tried
    /// again.
    Noticed(Flush),
    /// Frames ran out and tables were dropped; after the flush the access faults again and is served.
    Reclaimed(Flush),
    /// The hypervisor's memory, or an address that tables do not reach.
    Hidden,
    /// A store to a guarded page, which the hypervisor carries out.
    Guarded,
    /// Protections forbid it; the rights that there are.
    Protected(Rights),
}

/// Why protections were not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtectError {
    /// Not whole 4 KiB pages, or none.
    Unaligned,
    /// Part of the range is the hypervisor's memory.
    HypervisorMemory,
    /// Part of the range lies beyond what this processor's tables can map.
    OutOfReach,
    /// Rights that this processor's tables cannot say: writes without reads, or fetches alone on some.
    Unsupported,
    /// Too many ranges have rights of their own.
    TooManyRanges,
    /// Too many views are open.
    TooManyViews,
    /// The view is not open.
    NoView,
    /// No frame is free.
    Exhausted,
    /// The processor writes part of the range past the tables, or would write what is protected.
    Lent,
    /// A DMA-remapping unit does not follow, so that devices may reach the range.
    Devices,
    /// Part of the range has device registers to which the hypervisor carries out the guest's stores.
    Guarded,
}

/// The second level of address translation.
#[derive(Debug)]
pub struct SecondLevel<M, F> {
    memory: M,
    frames: Frames,
    pub(super) policy: Policy,
    pub(super) roots: Roots,
    pub(super) changes: Changes,
    generations: Generations,
    tables: usize,
    format: PhantomData<F>,
}

impl<M: PhysMemory, F: TableFormat> SecondLevel<M, F> {
    /// Nothing mapped, no frames; tables will lie in `memory`.
    pub const fn new(memory: M) -> Self {
        Self {
            memory,
            frames: Frames::new(),
            policy: Policy::new(),
            roots: Roots::new(),
            changes: Changes::new(),
            generations: Generations::new(),
            tables: 0,
            format: PhantomData,
        }
    }

    /// Opens the shared view, with nothing mapped yet. The frames were added before.
    ///
    /// # Errors
    ///
    /// [`Exhausted`] where fewer than [`RESERVE`] frames are free.
    pub fn start(&mut self, machine: &MemoryFacts) -> Result<(), Exhausted> {
        if self.frames.available() < RESERVE {
            return Err(Exhausted);
        }
        self.policy.start(machine);
        self.policy.decoy = self.frames.allocate(&self.memory)?;
        let root = self.radix().make_root()?;
        self.roots.insert(View::SHARED, root);
        Ok(())
    }

    /// Returns the hypervisor's frames.
    pub const fn frames(&mut self) -> &mut Frames {
        &mut self.frames
    }

    /// Returns the policy.
    #[must_use]
    pub const fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Returns the number of frames that are tables.
    #[must_use]
    pub const fn table_pages(&self) -> usize {
        self.tables
    }

    /// Root table of `view`; `None` where it is not open.
    #[must_use]
    pub fn root(&self, view: View) -> Option<TableRoot> {
        self.roots.get(view).map(TableRoot::new)
    }

    /// Returns what the tables of `view` map at `gpa` just now; a miss may be filled at any time.
    #[must_use]
    pub fn mapped(&self, view: View, gpa: GuestPhysAddr) -> Option<(HostPhysAddr, PageSize, Attributes)> {
        translate::<F>(&self.memory, self.roots.get(view)?, gpa.get())
    }

    /// Fills the shared view below `limit` ahead of any miss.
    ///
    /// # Errors
    ///
    /// [`Exhausted`]; misses fill the rest.
    pub fn fill_below(&mut self, limit: GuestPhysAddr) -> Result<(), Exhausted> {
        let Some(root) = self.roots.get(View::SHARED) else { return Ok(()) };
        let end = limit.page().get().min(self.policy.reach());
        let mut at = 0;
        for _ in 0..STEPS {
            if at >= end {
                break;
            }
            let run = self.policy.run_at(View::SHARED, at);
            let part = GuestRange::between(at, run.range.end().min(end));
            if let Some(attributes) = run.mapping() {
                self.radix().fill(root, part, attributes, part)?;
            }
            at = part.end();
        }
        Ok(())
    }

    /// Serves an access at `gpa` that the tables of `view` did not allow.
    pub fn violation(&mut self, view: View, gpa: GuestPhysAddr, access: Rights) -> Resolution {
        // The watch ends first: while it lasts, the policy knows no right to write the page.
        let is_noticed = access.contains(Rights::WRITE) && self.written(gpa);
        let run = self.policy.run_at(view, gpa.get());
        let (Some(attributes), Some(root)) = (run.attributes, self.roots.get(view)) else {
            return Resolution::Hidden;
        };
        if attributes.rights.is_empty() || !attributes.rights.contains(access) {
            // The watch is over all the same, and other views may allow the write.
            if is_noticed {
                return Resolution::Noticed(self.flush_if(true));
            }
            if access.contains(Rights::WRITE) && self.policy.is_guarded(GuestRange::page(gpa)) {
                return Resolution::Guarded;
            }
            return Resolution::Protected(attributes.rights);
        }
        let page = run.largest_page(gpa.get(), self.policy.largest_page_size());
        // Entries that are there agree with the policy, so a fill only adds, or joins small pages into a
        // large one that says the same: nobody need flush. Tables that joining drops wait for the next flush.
        match self.radix().fill(root, page, attributes, run.range) {
            Ok(()) if is_noticed => Resolution::Noticed(self.flush_if(true)),
            Ok(()) => Resolution::Filled,
            Err(Exhausted) => Resolution::Reclaimed(self.drop_tables()),
        }
    }

    /// Drops every table of every view, to have their frames back. The next accesses fill them again. It takes no
    /// longer the more tables there are.
    pub fn drop_tables(&mut self) -> Flush {
        for index in 0..self.roots.len() {
            let root = self.roots.at(index).1;
            self.radix().empty(root);
        }
        // No walk that begins from here on finds them.
        let roots = (0..self.roots.len()).map(|index| self.roots.at(index).1);
        self.tables = self.frames.retire_all(roots);
        // Even where nothing was dropped here, frames may wait from before.
        self.flush_if(true)
    }

    /// Takes back a flush that every processor has carried out.
    pub fn flushed(&mut self, flush: Flush) {
        let Some(needed) = flush.needed else { return };
        self.generations.flushed(needed.generation);
        // Tables dropped since are not covered; the flush that their drop asked for releases all.
        if needed.retired == self.frames.retired() {
            self.frames.release();
        }
    }

    /// Returns what the guest may do with the page at `gpa` in `view`; nothing with hypervisor memory.
    #[must_use]
    pub fn rights(&self, view: View, gpa: GuestPhysAddr) -> Rights {
        self.attributes(view, gpa).map_or(Rights::empty(), |a| a.rights)
    }

    /// Sets what the guest may do with `range`: in the shared view, for all CPUs but where their own views say
    /// otherwise; in another, for the CPU that runs on it.
    ///
    /// # Errors
    ///
    /// See [`ProtectError`]; nothing changed then.
    pub fn set_rights(
        &mut self,
        view: View,
        range: GuestRange,
        rights: Rights,
    ) -> Result<Flush, ProtectError> {
        if !self.policy.can_express(rights) {
            return Err(ProtectError::Unsupported);
        }
        let is_default = view == View::SHARED && rights == Rights::all();
        self.protect(view, range, (!is_default).then_some(Protection::Rights(rights)))
    }

    /// Returns what the page at `gpa` is in `view`; `None` for hypervisor memory and what tables do not reach.
    #[must_use]
    pub fn attributes(&self, view: View, gpa: GuestPhysAddr) -> Option<Attributes> {
        self.policy.run_at(view, gpa.get()).attributes
    }

    /// Takes back what was set: in the shared view the range gets all rights, in another the shared view's.
    ///
    /// # Errors
    ///
    /// See [`ProtectError`]; nothing changed then.
    pub fn reset_rights(&mut self, view: View, range: GuestRange) -> Result<Flush, ProtectError> {
        self.protect(view, range, None)
    }

    /// Opens `view`, which then says what the shared view says; gives its root. An open view stays as it is.
    ///
    /// # Errors
    ///
    /// [`ProtectError::TooManyViews`] or [`ProtectError::Exhausted`].
    pub fn open_view(&mut self, view: View) -> Result<TableRoot, ProtectError> {
        if let Some(root) = self.root(view) {
            return Ok(root);
        }
        if self.roots.is_full() {
            return Err(ProtectError::TooManyViews);
        }
        let root = self.radix().make_root()?;
        self.roots.insert(view, root);
        Ok(TableRoot::new(root))
    }

    /// Closes `view` and forgets its protections. No CPU runs on it any more; the shared view stays open.
    pub fn close_view(&mut self, view: View) -> Flush {
        if view == View::SHARED {
            return Flush::NONE;
        }
        let Some(root) = self.roots.remove(view) else { return Flush::NONE };
        self.policy.protections.clear(view);
        self.changes.note(view, GuestRange::between(0, self.policy.reach()));
        self.radix().remove(root);
        self.flush_if(true)
    }

    /// Takes memory types from `mtrrs` from now on.
    pub fn adopt_mtrrs(&mut self, mtrrs: &Mtrrs) -> Flush {
        let Some(changes) = self.policy.set_mtrrs(mtrrs) else { return self.drop_tables() };
        if !changes.is_empty() && self.tables > FEW_TABLES {
            return self.drop_tables();
        }
        let everywhere = GuestRange::between(0, self.policy.reach());
        let ranges = changes.iter().filter_map(|c| everywhere.intersection(GuestRange::between(c.0, c.1)));
        let mut is_stale = false;
        for range in ranges {
            is_stale |= self.refresh(View::SHARED, range);
        }
        self.flush_if(is_stale)
    }

    /// Takes the changes of protections since the last call, for tables that are derived from these.
    pub fn take_changes(&mut self) -> Changes {
        self.changes.take()
    }

    fn protect(
        &mut self,
        view: View,
        range: GuestRange,
        protection: Option<Protection>,
    ) -> Result<Flush, ProtectError> {
        self.adopt(view, range, protection)?;
        let is_stale = self.refresh(view, range);
        Ok(self.flush_if(is_stale))
    }

    /// Notes it in the policy, and not yet in the tables.
    pub(super) fn adopt(
        &mut self,
        view: View,
        range: GuestRange,
        protection: Option<Protection>,
    ) -> Result<(), ProtectError> {
        if range.end() > self.policy.reach() {
            return Err(ProtectError::OutOfReach);
        }
        if self.policy.is_hidden(range) {
            return Err(ProtectError::HypervisorMemory);
        }
        self.roots.get(view).ok_or(ProtectError::NoView)?;
        if protection.is_some() && self.policy.lent.touches(range) {
            return Err(ProtectError::Lent);
        }
        if protection.is_some() && self.policy.is_guarded(range) {
            return Err(ProtectError::Guarded);
        }
        self.policy.protections.set(view, range, protection)?;
        self.changes.note(view, range);
        Ok(())
    }

    /// Returns what is to be flushed before a caller may rely on what it asked for: where its own change took something
    /// away, or where an earlier one did, of another CPU, that not all have followed yet.
    pub(super) fn flush_if(&mut self, is_stale: bool) -> Flush {
        let generation = self.generations.relied_on(is_stale);
        let retired = self.frames.retired();
        Flush { needed: generation.map(|generation| Needed { retired, generation }) }
    }

    pub(super) fn radix(&mut self) -> Radix<'_, M, F> {
        Radix {
            memory: &self.memory,
            frames: &mut self.frames,
            largest: self.policy.largest_page_size(),
            decoy: self.policy.decoy(),
            tables: &mut self.tables,
            is_stale: false,
            format: PhantomData,
        }
    }
}

impl From<Unaligned> for ProtectError {
    fn from(_: Unaligned) -> Self {
        Self::Unaligned
    }
}

impl From<Full> for ProtectError {
    fn from(_: Full) -> Self {
        Self::TooManyRanges
    }
}

impl From<Exhausted> for ProtectError {
    fn from(_: Exhausted) -> Self {
        Self::Exhausted
    }
}

#[cfg(test)]
#[path = "second_level_tests.rs"]
mod tests;
