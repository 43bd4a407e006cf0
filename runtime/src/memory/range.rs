//! Ranges of guest-physical pages.

use x86::address::GuestPhysAddr;
use x86::paging::PAGE_SIZE;

/// Whole 4 KiB pages of guest-physical memory that follow each other; never empty.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct GuestRange {
    start: u64,
    end: u64,
}

/// The addresses do not make a range of whole pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unaligned;

impl GuestRange {
    /// Makes the range of `bytes` bytes from `start` on.
    ///
    /// # Errors
    ///
    /// [`Unaligned`] where start or length is not a multiple of 4 KiB, the length is zero, or the end wraps.
    pub fn new(start: GuestPhysAddr, bytes: u64) -> Result<Self, Unaligned> {
        let end = start.checked_add(bytes).ok_or(Unaligned)?;
        if start.page_offset() != 0 || end.page_offset() != 0 || bytes == 0 {
            return Err(Unaligned);
        }
        Ok(Self { start: start.get(), end: end.get() })
    }

    /// Returns the 4 KiB page that holds `gpa`.
    #[must_use]
    pub const fn page(gpa: GuestPhysAddr) -> Self {
        Self::block(gpa.get(), PAGE_SIZE)
    }

    /// Returns the block of `bytes`, a power of two, that holds `address`.
    pub(super) const fn block(address: u64, bytes: u64) -> Self {
        let start = address & !(bytes - 1);
        Self { start, end: start.saturating_add(bytes) }
    }

    /// `[start, end)`, both page-aligned, `start` below `end`.
    pub(crate) const fn between(start: u64, end: u64) -> Self {
        debug_assert!(start < end && start.is_multiple_of(PAGE_SIZE));
        Self { start, end }
    }

    /// Returns the first address.
    #[must_use]
    pub const fn start(self) -> u64 {
        self.start
    }

    /// Returns the first address behind.
    #[must_use]
    pub const fn end(self) -> u64 {
        self.end
    }

    /// Its pages, in order.
    pub(super) fn pages(self) -> impl Iterator<Item = GuestPhysAddr> {
        (self.start..self.end).step_by(4096).map(GuestPhysAddr::new)
    }

    /// Returns whether every page of `other` is one of `self`.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.start <= other.start && other.end <= self.end
    }

    /// Returns the pages in both; `None` where there are none.
    #[must_use]
    pub fn intersection(self, other: Self) -> Option<Self> {
        let (start, end) = (self.start.max(other.start), self.end.min(other.end));
        (start < end).then_some(Self { start, end })
    }

    /// Returns the blocks of `bytes`, a power of two, that lie wholly inside; `None` where none does.
    pub(super) fn blocks_inside(self, bytes: u64) -> Option<Self> {
        let (start, end) = (self.start.checked_next_multiple_of(bytes)?, self.end & !(bytes - 1));
        (start < end).then_some(Self { start, end })
    }
}

impl core::fmt::Debug for GuestRange {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:#x}..{:#x}", self.start, self.end)
    }
}

#[cfg(test)]
mod tests {
    use super::{GuestRange, Unaligned};
    use x86::address::GuestPhysAddr;

    #[test]
    fn only_whole_pages_make_a_range() {
        let new = |start, bytes| GuestRange::new(GuestPhysAddr::new(start), bytes);
        assert_eq!(new(0x1000, 0x2000), Ok(GuestRange::between(0x1000, 0x3000)));
        for (start, bytes) in
            [(0x1001, 0x1000), (0x1000, 0xfff), (0x1000, 0), (!0xfff, 0x1000), (!0xfff, !0xfff)]
        {
            assert_eq!(new(start, bytes), Err(Unaligned));
        }
    }

    #[test]
    fn inner_blocks_leave_the_ragged_ends() {
        let range = GuestRange::between(0x1f_f000, 0x60_1000);
        assert_eq!(range.blocks_inside(0x20_0000), Some(GuestRange::between(0x20_0000, 0x60_0000)));
        assert_eq!(GuestRange::between(0x1000, 0x3f_f000).blocks_inside(0x20_0000), None);
    }
}
