//! What other processors must forget before a change of the second-level tables is complete.

/// Whether every processor must drop its second-level translations.
///
/// Carried out without the lock on the tables: each CPU drops all of them,
/// and then `SecondLevel::flushed` takes this value back, so that dropped tables can be used again.
#[must_use = "until they flush, processors use translations that no longer hold"]
#[derive(Debug, PartialEq, Eq)]
pub struct Flush {
    /// What all must have forgotten; `None` where nothing need be flushed.
    pub(super) needed: Option<Needed>,
}

/// A point in time from which on nothing older may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Needed {
    /// Number of frames retired when the change was made.
    pub(super) retired: u64,
    /// Number of the change, among those that took something away.
    pub(super) generation: u64,
}

/// Changes that took something away, and how far all processors have followed.
#[derive(Debug, Default)]
pub(super) struct Generations {
    last: u64,
    flushed: u64,
}

impl Generations {
    pub(super) const fn new() -> Self {
        Self { last: 0, flushed: 0 }
    }

    /// Returns the change that a caller relies on whose own took something away, or, where it took nothing, whose wish
    /// may rest on one that not all processors know yet.
    pub(super) const fn relied_on(&mut self, is_stale: bool) -> Option<u64> {
        if is_stale {
            self.last += 1;
        }
        if self.flushed < self.last { Some(self.last) } else { None }
    }

    /// All processors have flushed since the change of this number.
    pub(super) fn flushed(&mut self, generation: u64) {
        self.flushed = self.flushed.max(generation);
    }
}

impl Flush {
    /// Nothing to flush.
    pub const NONE: Self = Self { needed: None };

    /// Returns whether some processor may hold what no longer holds.
    #[must_use]
    pub const fn is_needed(&self) -> bool {
        self.needed.is_some()
    }
}
