//! Reclaim of EPT02 frames: what is dropped to have some again, and when it is free.

use super::{Ept02, NO_ROOT};
use crate::vmx::nested::memory::ept02::pool::Dropped;
use hw::PhysMemory;

/// Part of the pool that is made free when none is: one in so many frames.
const RECLAIMED_PART: usize = 8;

impl<M: PhysMemory> Ept02<M> {
    /// Drops tables to have frames again: of the roots that were not used for longest, and where CPUs are on all
    /// that are left, some tables of these.
    ///
    /// The frames are free after the flush of all CPUs that [`Self::flushed`] then takes back.
    pub(in crate::vmx) fn reclaim(&mut self) -> Dropped {
        // Many at a time, as each reclaim waits for all CPUs.
        let wanted = (self.tables.pool.len() / RECLAIMED_PART).max(1);
        while self.is_short_of(wanted) {
            let Some(index) = self.least_recently_used() else { break };
            self.evict(index);
        }
        // Tables of pages first: they hold most frames, and what is above them soon serves again.
        for highest in [1, 3] {
            for _ in 0..self.tables.pool.len() {
                if !self.is_short_of(wanted) {
                    break;
                }
                self.hand = (self.hand + 1) % self.tables.pool.len();
                match self.tables.pool.table_at(self.hand) {
                    Some((frame, table)) if table.level <= highest => self.tables.drop_branch(frame),
                    _ => {}
                }
            }
        }
        self.tables.pool.dropped()
    }

    /// Takes back a flush that every CPU has carried out.
    pub(in crate::vmx) fn flushed(&mut self, dropped: Dropped) {
        self.tables.pool.release(dropped);
    }

    fn is_short_of(&self, wanted: usize) -> bool {
        self.tables.pool.available() + self.tables.pool.waiting() < wanted
    }

    /// Returns the root that was not used for longest, of those that no CPU is on.
    pub(super) fn least_recently_used(&self) -> Option<usize> {
        let unused = self.roots.iter().enumerate().filter(|(index, root)| {
            root.key.is_some() && !self.active.iter().any(|&active| usize::from(active) == *index)
        });
        unused.min_by_key(|(_, root)| root.used).map(|(index, _)| index)
    }

    /// Empties the place of a root; its tables keep their content until all CPUs have flushed.
    pub(super) fn evict(&mut self, index: usize) {
        if self.roots[index].key.take().is_some() {
            self.tables.drop_table(self.roots[index].frame);
        }
        for active in self.active.iter_mut().filter(|active| usize::from(**active) == index) {
            *active = NO_ROOT;
        }
    }
}
