//! The order in which roots were last used: a list through them.

use super::{NO_ROOT, Root};

/// Both ends of the list.
#[derive(Debug)]
pub(super) struct Recency {
    newest: u16,
    oldest: u16,
}

/// A root's place in the list.
#[derive(Clone, Copy, Debug)]
pub(super) struct Neighbours {
    newer: u16,
    older: u16,
}

impl Neighbours {
    pub(super) const NONE: Self = Self { newer: NO_ROOT, older: NO_ROOT };
}

impl Recency {
    pub(super) const EMPTY: Self = Self { newest: NO_ROOT, oldest: NO_ROOT };

    /// Adds a root, not in the list, as the one used last.
    pub(super) fn add(&mut self, roots: &mut [Root], index: u16) {
        roots[usize::from(index)].neighbours = Neighbours { newer: NO_ROOT, older: self.newest };
        match roots.get_mut(usize::from(self.newest)) {
            Some(newest) => newest.neighbours.newer = index,
            None => self.oldest = index,
        }
        self.newest = index;
    }

    /// Takes a root out of the list.
    pub(super) fn remove(&mut self, roots: &mut [Root], index: u16) {
        let Neighbours { newer, older } =
            core::mem::replace(&mut roots[usize::from(index)].neighbours, Neighbours::NONE);
        match roots.get_mut(usize::from(newer)) {
            Some(root) => root.neighbours.older = older,
            None => self.newest = older,
        }
        match roots.get_mut(usize::from(older)) {
            Some(root) => root.neighbours.newer = newer,
            None => self.oldest = newer,
        }
    }

    /// Returns the root that was not used for longest, of those that no CPU is on.
    pub(super) fn least_recently_used(&self, roots: &[Root]) -> Option<u16> {
        let mut index = self.oldest;
        // No more steps than there are CPUs.
        while let Some(root) = roots.get(usize::from(index)) {
            if root.users == 0 {
                return Some(index);
            }
            index = root.neighbours.newer;
        }
        None
    }
}
