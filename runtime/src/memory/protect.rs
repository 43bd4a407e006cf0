//! Protections: which rights the guest has on a page, where they are not all.
//!
//! One sorted array of boundaries serves all views. A boundary is a 64-bit number: the view, the page where
//! it lies, and what holds from there to the view's next boundary. So a look-up is one binary search, and an
//! exception costs sixteen bytes whatever its size.

use arrayvec::ArrayVec;
use x86::paging::Rights;

use super::range::GuestRange;
use super::views::View;

/// Most boundaries; each range with rights of its own has two, and ranges that touch share one.
pub const BOUNDARIES: usize = 32768;
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
    /// What the guest may do.
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
    boundaries: ArrayVec<u64, BOUNDARIES>,
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
        Self { boundaries: ArrayVec::new_const() }
    }

    /// What `view` says around `address`, which lies below 2^52.
    #[must_use]
    pub fn run_at(&self, view: View, address: u64) -> RightsRun {
        let behind = self.boundaries.partition_point(|&b| b & PAGE_MASK <= key(view, address) & PAGE_MASK);
        let of_view =
            |index: usize| self.boundaries.get(index).filter(|&&b| b >> VIEW_SHIFT == view.number());
        let last = behind.checked_sub(1).and_then(of_view);
        RightsRun {
            start: last.map_or(0, |&b| address_of(b)),
            end: of_view(behind).map_or(1 << VIEW_SHIFT, |&b| address_of(b)),
            protection: last.and_then(|&b| protection_of(b)),
        }
    }

    /// What `view` says of the page at `address`, which lies below 2^52.
    #[must_use]
    pub fn at(&self, view: View, address: u64) -> Option<Protection> {
        let behind = self.boundaries.partition_point(|&b| b & PAGE_MASK <= key(view, address) & PAGE_MASK);
        self.said_before(view, behind)
    }

    /// Whether `view` says anything of some page of `range`, which ends below 2^52.
    #[must_use]
    pub fn touches(&self, view: View, range: GuestRange) -> bool {
        let first = self.run_at(view, range.start());
        // What begins further on begins with a boundary that gives.
        let behind =
            self.boundaries.partition_point(|&b| b & PAGE_MASK <= key(view, range.start()) & PAGE_MASK);
        let inside =
            self.boundaries[behind..].iter().take_while(|&&b| b & PAGE_MASK < key(view, range.end()));
        first.protection.is_some() || inside.copied().any(|b| protection_of(b).is_some())
    }

    /// Has `view` say `protection` for `range`, which ends below 2^52; `None` takes back what was set.
    ///
    /// # Errors
    ///
    /// [`Full`]; nothing changed then.
    pub fn set(&mut self, view: View, range: GuestRange, protection: Option<Protection>) -> Result<(), Full> {
        let first = self.boundaries.partition_point(|&b| b & PAGE_MASK < key(view, range.start()));
        let is_inside = |b: &&u64| **b & PAGE_MASK <= key(view, range.end());
        let behind = first + self.boundaries[first..].iter().take_while(is_inside).count();
        let (before, after) = (self.said_before(view, first), self.said_before(view, behind));

        let mut new: ArrayVec<u64, 2> = ArrayVec::new();
        if protection != before {
            new.push(boundary(view, range.start(), protection));
        }
        if after != protection {
            new.push(boundary(view, range.end(), after));
        }
        let room = if protection.is_some() { BOUNDARIES - SPARE } else { BOUNDARIES };
        let is_more = new.len() > behind - first;
        if is_more && self.boundaries.len() - (behind - first) + new.len() > room {
            return Err(Full);
        }
        self.boundaries.drain(first..behind);
        for boundary in new.into_iter().rev() {
            self.boundaries.try_insert(first, boundary).map_err(|_| Full)?;
        }
        Ok(())
    }

    /// Every page that a decoy stands in for, in some view.
    pub fn decoy_pages(&self) -> impl Iterator<Item = u64> + '_ {
        self.boundaries.windows(2).filter(|pair| pair[0] & DECOY != 0).flat_map(|pair| {
            // A decoy ends before the view does, as ranges do.
            (address_of(pair[0])..address_of(pair[1])).step_by(4096)
        })
    }

    /// What `view` says in front of the boundary with this index.
    fn said_before(&self, view: View, index: usize) -> Option<Protection> {
        let last = index.checked_sub(1).and_then(|last| self.boundaries.get(last));
        last.filter(|&&b| b >> VIEW_SHIFT == view.number()).and_then(|&b| protection_of(b))
    }

    /// Takes back all that was set for `view`.
    pub fn clear(&mut self, view: View) {
        let first = self.boundaries.partition_point(|&b| b >> VIEW_SHIFT < view.number());
        let behind = self.boundaries.partition_point(|&b| b >> VIEW_SHIFT <= view.number());
        self.boundaries.drain(first..behind);
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
