//! Tables that are brought to agree with the policy, where it changed.

use hw::PhysMemory;
use x86::address::HostPhysAddr;
use x86::paging::TableFormat;

use super::flush::Flush;
use super::policy::Policy;
use super::protect::Protection;
use super::range::GuestRange;
use super::second_level::{ProtectError, STEPS, SecondLevel};
use super::views::View;

impl<M: PhysMemory, F: TableFormat> SecondLevel<M, F> {
    /// Says what all CPUs' guest may do in `range`, or takes that back with `None`. The tables keep small pages for
    /// it: what was covered once is covered again, and splitting a page takes longer than all else.
    ///
    /// # Errors
    ///
    /// See [`ProtectError`]; nothing changed then.
    pub fn cover(
        &mut self,
        range: GuestRange,
        protection: Option<Protection>,
    ) -> Result<Flush, ProtectError> {
        self.adopt(View::SHARED, range, protection)?;
        let is_stale = self.update_views(View::SHARED, |_, _| range);
        Ok(self.flush_if(is_stale))
    }

    /// Makes the tables agree with the policy in `range`, in all views that follow `view`.
    pub(super) fn refresh(&mut self, view: View, range: GuestRange) -> bool {
        self.update_views(view, |policy, view| {
            // Out to the large pages that the ends may have become part of.
            let start = policy.page_at(view, range.start()).range.start();
            GuestRange::between(start, policy.page_at(view, range.end() - 1).range.end())
        })
    }

    fn update_views(&mut self, view: View, range: impl Fn(&Policy, View) -> GuestRange) -> bool {
        let mut is_stale = false;
        for index in 0..self.roots.len() {
            let (open, root) = self.roots.at(index);
            if view == View::SHARED || view == open {
                let range = range(&self.policy, open);
                is_stale |= self.update_view(open, root, range);
            }
        }
        is_stale
    }

    fn update_view(&mut self, view: View, root: HostPhysAddr, range: GuestRange) -> bool {
        let (mut at, end) = (range.start(), range.end());
        let mut is_stale = false;
        for _ in 0..STEPS {
            if at >= end {
                return is_stale;
            }
            let run = self.policy.run_at(view, at);
            let part = GuestRange::between(at, run.range.end().min(end));
            let mut radix = self.radix();
            radix.update(root, part, run.mapping());
            is_stale |= radix.is_stale;
            at = part.end();
        }
        if at < end {
            // Too many runs to go through: misses will ask again.
            let mut radix = self.radix();
            radix.update(root, GuestRange::between(at, end), None);
            is_stale |= radix.is_stale;
        }
        is_stale
    }
}
