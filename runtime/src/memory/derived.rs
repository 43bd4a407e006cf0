//! What the hypervisor derives from the guest's pages: it watches them for writes, where the processor lets it.

use hw::PhysMemory;
use x86::address::GuestPhysAddr;
use x86::paging::TableFormat;

use super::flush::Flush;
use super::range::GuestRange;
use super::second_level::{ProtectError, SecondLevel};
use super::views::View;
use super::watch::Watch;

impl<M: PhysMemory, F: TableFormat> SecondLevel<M, F> {
    /// Watches the page at `gpa` for the next write. The flush comes before the page is read.
    ///
    /// # Errors
    ///
    /// See [`ProtectError`]; nothing changed then.
    pub fn watch(&mut self, gpa: GuestPhysAddr) -> Result<(Watch, Flush), ProtectError> {
        let range = GuestRange::page(gpa);
        if let Some(watch) = self.policy.watched.get(range.start()) {
            return Ok((watch, self.flush_if(false)));
        }
        if range.end() > self.policy.reach() {
            return Err(ProtectError::OutOfReach);
        }
        if self.policy.is_hidden(range) {
            return Err(ProtectError::HypervisorMemory);
        }
        if self.policy.lent.touches(range) || self.policy.unseen.may_reach(range.start()) {
            return Err(ProtectError::Lent);
        }
        let watch = self.policy.watched.insert(range.start()).ok_or(ProtectError::TooManyRanges)?;
        self.changes.note(View::SHARED, range);
        let is_stale = self.refresh(View::SHARED, range);
        Ok((watch, self.flush_if(is_stale)))
    }

    /// Has the guest's stores to the page at `gpa` exit for good, for the hypervisor to carry them out. Before any CPU
    /// runs the guest.
    ///
    /// # Errors
    ///
    /// See [`ProtectError`]; nothing changed then. [`ProtectError::Lent`]: the page is memory.
    pub fn guard(&mut self, gpa: GuestPhysAddr) -> Result<(), ProtectError> {
        let range = GuestRange::page(gpa);
        if range.end() > self.policy.reach() {
            return Err(ProtectError::OutOfReach);
        }
        if self.policy.is_hidden(range) {
            return Err(ProtectError::HypervisorMemory);
        }
        if self.policy.touches_memory(range) || self.policy.lent.touches(range) {
            return Err(ProtectError::Lent);
        }
        self.policy.guarded.insert(range.start())?;
        self.refresh(View::SHARED, range);
        Ok(())
    }

    /// Returns the watch of the page at `gpa`, unless it was written.
    #[must_use]
    pub fn watch_of(&self, gpa: GuestPhysAddr) -> Option<Watch> {
        self.policy.watched.get(gpa.page().get())
    }

    /// Ends the watch of the page at `gpa`, which is about to be written; returns whether there was one.
    pub fn written(&mut self, gpa: GuestPhysAddr) -> bool {
        let is_noticed = self.policy.watched.end(gpa.page().get());
        if is_noticed {
            // Rights only grow: a stale translation faults once more, and tables that joining drops wait for
            // the next flush.
            self.refresh(View::SHARED, GuestRange::page(gpa));
        }
        is_noticed
    }

    /// A processor writes the page at `gpa` past the tables, until [`Self::end_unseen_writes`]. It is not watched
    /// meanwhile.
    pub fn begin_unseen_writes(&mut self, gpa: GuestPhysAddr) {
        self.policy.unseen.begin(gpa.page().get());
        self.written(gpa);
    }

    /// A processor that had begun to write the page at `gpa` does so no longer.
    pub fn end_unseen_writes(&mut self, gpa: GuestPhysAddr) {
        self.policy.unseen.end(gpa.page().get());
    }

    /// Lets the processor write `range` past the tables, for good.
    ///
    /// # Errors
    ///
    /// [`ProtectError::Lent`] where some view says anything of the range; it is the hypervisor's, beyond reach, or one
    /// range too many. Nothing changed then.
    pub fn lend(&mut self, range: GuestRange) -> Result<(), ProtectError> {
        if range.end() > self.policy.reach() {
            return Err(ProtectError::OutOfReach);
        }
        if self.policy.is_hidden(range) {
            return Err(ProtectError::HypervisorMemory);
        }
        if self.policy.is_guarded(range) {
            return Err(ProtectError::Guarded);
        }
        if (0..self.roots.len()).any(|index| self.policy.protections.touches(self.roots.at(index).0, range)) {
            return Err(ProtectError::Lent);
        }
        self.policy.lent.insert(range)?;
        // What is derived from these pages goes stale without a fault from now on: nobody is to rely on one.
        for page in range.pages() {
            self.written(page);
        }
        Ok(())
    }
}
