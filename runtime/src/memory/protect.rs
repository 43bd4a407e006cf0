//! Protections: which rights the guest has on a page, where they are not all.
//!
//! One sorted set of boundaries serves all views. A boundary is a 64-bit number: the view, the page where
//! it lies, and what holds from there to the view's next boundary. So a look-up is two binary searches, and an
//! exception costs sixteen bytes whatever its size, and moves few others.

use arrayvec::ArrayVec;
use x86::paging::Rights;

use super::boundaries::{Boundaries, CAPACITY};
use super::range::GuestRange;
use super::views::View;

/// Most boundaries; each range with rights of its own has two, and ranges that touch share one.
pub const BOUNDARIES: usize = CAPACITY;
/// Boundaries that are kept for taking back: a page from the midst of a range needs two, until its neighbours follow.
/// Many CPUs may be at that.
const SPARE: usize = 128;

const VIEW_SHIFT: u32 = 52;
const PAGE_MASK: u64 = !0xfff;
/// Set in a boundary from which on rights are given, rather than left to the default.
const GIVEN: u64 = 1 << 3;
/// Set in a boundary from which on the decoy stands in for the pages.
const DECOY: u64 = 1 << 4;

/// What is said of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// The guest has these rights on it.
    Rights(Rights),
    /// The guest reads zeros there, from the decoy, and has no other right.
    Decoy,
}

impl Protection {
    /// Returns what the guest may do.
    #[must_use]
    pub const fn rights(self) -> Rights {
        match self {
            Self::Rights(rights) => rights,
            Self::Decoy => Rights::READ,
        }
    }
}

/// There is no room for another range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// Adjoining pages for which one view says the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RightsRun {
    /// First address.
    pub start: u64,
    /// First address behind.
    pub end: u64,
    /// What was set; `None` where nothing was.
    pub protection: Option<Protection>,
}

/// What hypapps set, for all views.
#[derive(Debug)]
pub struct Protections {
    boundaries: Boundaries,
}

impl Default for Protections {
    fn default() -> Self {
        Self::new()
    }
}

impl Protections {
    /// Nothing set.
    #[must_use]
    pub const fn new() -> Self {
        Self { boundaries: Boundaries::new() }
    }

    /// Returns what `view` says around `address`, which lies below 2^52.
    #[must_use]
    pub fn run_at(&self, view: View, address: u64) -> RightsRun {
        let at = key(view, address) | !PAGE_MASK;
        let of_view = |boundary: &u64| boundary >> VIEW_SHIFT == view.number();
        let last = self.boundaries.last_up_to(at).filter(of_view);
        RightsRun {
            start: last.map_or(0, address_of),
            end: self.boundaries.first_above(at).filter(of_view).map_or(1 << VIEW_SHIFT, address_of),
            protection: last.and_then(protection_of),
        }
    }

    /// Returns what `view` says of the page at `address`, which lies below 2^52.
    #[must_use]
    pub fn at(&self, view: View, address: u64) -> Option<Protection> {
        let last = self.boundaries.last_up_to(key(view, address) | !PAGE_MASK);
        last.filter(|boundary| boundary >> VIEW_SHIFT == view.number()).and_then(protection_of)
    }

    /// Returns whether `view` says anything of some page of `range`, which ends below 2^52.
    #[must_use]
    pub fn touches(&self, view: View, range: GuestRange) -> bool {
        let first = self.run_at(view, range.start());
        // What begins further on begins with a boundary that gives.
        let mut inside = key(view, range.start()) | !PAGE_MASK;
        while let Some(next) =
            self.boundaries.first_above(inside).filter(|next| *next < key(view, range.end()))
        {
            if protection_of(next).is_some() {
                return true;
            }
            inside = next;
        }
        first.protection.is_some()
    }

    /// Sets `protection` for `range` in `view`, which ends below 2^52; `None` takes back what was set.
    ///
    /// # Errors
    ///
    /// [`Full`]; nothing changed then.
    pub fn set(&mut self, view: View, range: GuestRange, protection: Option<Protection>) -> Result<(), Full> {
        let before = range.start().checked_sub(1).and_then(|last| self.at(view, last));
        let after = self.at(view, range.end());

        let mut new: ArrayVec<u64, 2> = ArrayVec::new();
        if protection != before {
            new.push(boundary(view, range.start(), protection));
        }
        if after != protection {
            new.push(boundary(view, range.end(), after));
        }
        let old = key(view, range.start())..=key(view, range.end()) | !PAGE_MASK;
        let replaced = self.boundaries.count(old.clone(), new.len());
        let room = if protection.is_some() { BOUNDARIES - SPARE } else { BOUNDARIES };
        if new.len() > replaced && self.boundaries.len() - replaced + new.len() > room {
            return Err(Full);
        }
        self.boundaries.remove(old);
        for boundary in new {
            if !self.boundaries.insert(boundary) {
                return Err(Full);
            }
        }
        Ok(())
    }

    /// Returns every page that a decoy stands in for, in some view.
    pub fn decoy_pages(&self) -> impl Iterator<Item = u64> + '_ {
        let pairs = self.boundaries.iter().zip(self.boundaries.iter().skip(1));
        pairs.filter(|(from, _)| from & DECOY != 0).flat_map(|(from, to)| {
            // A decoy ends before the view does, as ranges do.
            (address_of(from)..address_of(to)).step_by(4096)
        })
    }

    /// Takes back all that was set for `view`.
    pub fn clear(&mut self, view: View) {
        self.boundaries.remove(key(view, 0)..=key(view, (1 << VIEW_SHIFT) - 1));
    }
}

fn key(view: View, address: u64) -> u64 {
    view.number() << VIEW_SHIFT | address
}

fn boundary(view: View, address: u64, protection: Option<Protection>) -> u64 {
    let what = match protection {
        None => 0,
        Some(Protection::Rights(rights)) => GIVEN | u64::from(rights.bits()),
        Some(Protection::Decoy) => GIVEN | DECOY,
    };
    key(view, address) | what
}

fn address_of(boundary: u64) -> u64 {
    boundary & PAGE_MASK & ((1 << VIEW_SHIFT) - 1)
}

fn protection_of(boundary: u64) -> Option<Protection> {
    if boundary & DECOY != 0 {
        return Some(Protection::Decoy);
    }
    let rights = Rights::from_bits_truncate(boundary.to_le_bytes()[0]);
    (boundary & GIVEN != 0).then_some(Protection::Rights(rights))
}

#[cfg(test)]
#[path = "protect_tests.rs"]
mod tests;
