//! What changed in the policy, for those who keep something derived from it.

use arrayvec::ArrayVec;

use super::range::GuestRange;
use super::views::View;

/// Ranges that are told apart; more are one, of everything.
pub const CAPACITY: usize = 16;

/// Pages whose rights or place changed since `Changes::take` last took them: sooner too many than too few.
#[derive(Debug, Default)]
pub struct Changes {
    ranges: ArrayVec<(View, GuestRange), CAPACITY>,
}

impl Changes {
    pub(super) const fn new() -> Self {
        Self { ranges: ArrayVec::new_const() }
    }

    /// Pages of `range` changed in `view`; in the shared one, in all that follow it too.
    pub(super) fn note(&mut self, view: View, range: GuestRange) {
        if let Some(last) = self.ranges.last_mut()
            && last.0 == view
            && last.1.end() == range.start()
        {
            last.1 = GuestRange::between(last.1.start(), range.end());
        } else if self.ranges.try_push((view, range)).is_err() {
            self.ranges.clear();
            self.ranges.push((View::SHARED, GuestRange::between(0, !0xfff)));
        }
    }

    pub(super) fn take(&mut self) -> Self {
        core::mem::take(self)
    }

    /// Returns the pages, by view.
    pub fn iter(&self) -> impl Iterator<Item = (View, GuestRange)> + '_ {
        self.ranges.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::{CAPACITY, Changes};
    use crate::memory::range::GuestRange;
    use crate::memory::views::View;

    fn page(number: u64) -> GuestRange {
        GuestRange::between(number << 12, (number + 1) << 12)
    }

    #[test]
    fn ranges_that_follow_each_other_are_one() {
        let mut changes = Changes::new();
        changes.note(View::SHARED, page(1));
        changes.note(View::SHARED, page(2));
        changes.note(View::of_cpu(1), page(3));
        let taken: Vec<_> = changes.take().iter().collect();
        assert_eq!(taken, [(View::SHARED, GuestRange::between(0x1000, 0x3000)), (View::of_cpu(1), page(3))]);
        assert_eq!(changes.iter().count(), 0);
    }

    #[test]
    fn too_many_become_everything() {
        let mut changes = Changes::new();
        for number in 0..=CAPACITY as u64 {
            changes.note(View::of_cpu(0), page(3 * number));
        }
        let everything = GuestRange::between(0, !0xfff);
        assert_eq!(changes.iter().collect::<Vec<_>>(), [(View::SHARED, everything)]);
    }
}
