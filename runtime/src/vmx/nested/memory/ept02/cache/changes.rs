//! Drops what a change of protections makes untrue.

use super::{Ept02, Key};
use crate::memory::changes::{self, Changes};
use crate::memory::range::GuestRange;
use crate::memory::views::View;
use arrayvec::ArrayVec;
use hw::PhysMemory;
use x86::address::HostPhysAddr;
use x86::paging::ENTRIES;

/// Frames of the pool that a search looks through at most.
const SEARCHED_FRAMES: usize = 4096;
/// Entries, and comparisons of ranges, that a search comes to at most: far below 100,000 ticks.
const SEARCH_STEPS: usize = 4096;

type Ranges = ArrayVec<(View, GuestRange), { changes::CAPACITY }>;

/// A search took more steps than it may.
struct TooLong;

impl<M: PhysMemory> Ept02<M> {
    /// Drops what the tables hold of the pages that changed, and all decoys beside them. A flush of all CPUs must
    /// follow.
    ///
    /// Mostly the tables map none of them, or there are few tables where they may be. Where a search would take long,
    /// all that is under those protections goes instead, and comes back on faults.
    pub(in crate::vmx) fn forget(&mut self, changes: &Changes, decoy: HostPhysAddr) {
        if self.tables.pool.below_roots() == 0 {
            return;
        }
        let ranges: Ranges = changes.iter().filter(|change| self.tables.filter.may_hold(change.1)).collect();
        if self.search(&ranges, decoy).is_err() {
            self.drop_roots(|key| ranges.iter().any(|change| is_concerned(*change, key.view)), |_| {});
        }
    }

    /// Drops the pages of `ranges`, and decoys.
    fn search(&mut self, ranges: &Ranges, decoy: HostPhysAddr) -> Result<(), TooLong> {
        let start = ranges.iter().map(|change| change.1.start()).min();
        let Some((start, end)) = start.zip(ranges.iter().map(|change| change.1.end()).max()) else {
            return Ok(());
        };
        if self.tables.pool.reach() > SEARCHED_FRAMES {
            return Err(TooLong);
        }
        let mut steps = SEARCH_STEPS;
        for index in 0..self.tables.pool.reach() {
            let Some((frame, table)) = self.tables.pool.table_at(index) else { continue };
            if !table.may_map(start, end) || !self.tables.pool.is_in_use(index) {
                continue;
            }
            steps = steps.checked_sub(ranges.len()).ok_or(TooLong)?;
            let Some(Key { view, .. }) = self.roots.get(usize::from(table.root)).and_then(|root| root.key)
            else {
                continue;
            };
            let mut here = ranges.clone();
            here.retain(|change| {
                is_concerned(*change, view) && table.may_map(change.1.start(), change.1.end())
            });
            if here.is_empty() {
                continue;
            }
            steps = steps.checked_sub(ENTRIES * here.len()).ok_or(TooLong)?;
            // An entry for the decoy does not say which page it stands in for, so that all of them go.
            self.tables.drop_pages(frame, table.level, |page, bytes| {
                let is_changed =
                    |change: &(View, GuestRange)| page < change.1.end() && change.1.start() < page + bytes;
                page == decoy.get() || here.iter().any(is_changed)
            });
        }
        Ok(())
    }
}

/// Returns whether a change concerns roots under the protections of `view`.
fn is_concerned((changed, _): (View, GuestRange), view: View) -> bool {
    changed == View::SHARED || changed == view
}
