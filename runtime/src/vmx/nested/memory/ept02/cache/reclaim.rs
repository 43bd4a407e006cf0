//! Reclaim of EPT02 frames: what is dropped to have some again, and when it is free.

use super::{Ept02, NO_ROOT};
use crate::vmx::nested::memory::ept02::pool::Dropped;
use hw::PhysMemory;

/// Part of the pool that is made free when none is: one in so many frames.
const RECLAIMED_PART: usize = 8;
/// Frames that are made free at a time, at most.
const RECLAIMED_LIMIT: usize = 128;
/// Frames that are looked at, at a time, for tables of pages.
const LOOKS: usize = 1024;

impl<M: PhysMemory> Ept02<M> {
    /// Drops tables to have frames again: of the roots that were not used for longest, and where CPUs are on all
    /// that are left, some tables of these.
    ///
    /// The frames are free after the flush of all CPUs that [`Self::flushed`] then takes back.
    pub(in crate::vmx) fn reclaim(&mut self) -> Dropped {
        // Many at a time, as each reclaim waits for all CPUs.
        let wanted = (self.tables.pool.len() / RECLAIMED_PART).clamp(1, RECLAIMED_LIMIT);
        while self.is_short_of(wanted) {
            let Some(index) = self.recency.least_recently_used(self.roots) else { break };
            self.evict(usize::from(index));
        }
        // Tables of pages first: they hold most frames, and what is above them soon serves again.
        let frames = self.tables.pool.len();
        for (highest, looks) in [(1, frames.min(LOOKS)), (3, frames)] {
            for _ in 0..looks {
                if !self.is_short_of(wanted) {
                    break;
                }
                self.hand = (self.hand + 1) % frames;
                match self.tables.pool.table_at(self.hand) {
                    Some((frame, table))
                        if table.level <= highest && self.tables.pool.is_in_use(self.hand) =>
                    {
                        self.tables.drop_branch(frame);
                    }
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

    /// Empties the place of a root that no CPU is on; its tables keep their content until all CPUs have flushed.
    pub(super) fn evict(&mut self, index: usize) {
        if self.roots[index].key.take().is_some() {
            self.recency.remove(self.roots, u16::try_from(index).unwrap_or(NO_ROOT));
            self.tables.drop_table(self.roots[index].frame);
        }
    }
}
