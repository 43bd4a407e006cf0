//! Pages that a PAL can be made of: anonymous, present and locked, so that the system does not swap them out.
//!
//! That is no promise that it leaves them where they are: Linux's compaction and NUMA balancing move locked pages too,
//! unless vm.compact_unevictable_allowed and kernel.numa_balancing are 0. The PAL of a page that moves is revoked.
#![expect(unsafe_code, reason = "pages from the system")]
// UNSAFETY: one type that owns its pages from the system's hand to giving them back.

use crate::system::{Refusal, Rights, native};
use crate::{Error, PAGE_SIZE};
use core::{ptr, slice};

/// Pages of this process, given back when dropped.
#[derive(Debug)]
pub struct Pages {
    start: usize,
    count: usize,
}

impl Pages {
    /// Gives `count` pages, readable and writable, where the system likes.
    ///
    /// # Errors
    ///
    /// The system refuses memory, or to lock it.
    pub fn anywhere(count: usize) -> Result<Self, Error> {
        Self::new(0, count)
    }

    /// Gives `count` pages, readable and writable, from the address `start` on.
    ///
    /// # Errors
    ///
    /// As [`Pages::anywhere`], or [`Error::AddressTaken`].
    pub fn at(start: usize, count: usize) -> Result<Self, Error> {
        Self::new(start, count).map_err(|error| match error {
            Error::Memory { number: native::TAKEN, .. } => Error::AddressTaken { start },
            _ => error,
        })
    }

    fn new(start: usize, count: usize) -> Result<Self, Error> {
        let bytes = count.saturating_mul(PAGE_SIZE);
        let mut pages = Self { start: native::allocate(start, bytes)?, count };
        native::lock(pages.start, bytes)?;
        // Present and writable from the first instant on, also where locking does not touch.
        for page in pages.bytes_mut().chunks_mut(PAGE_SIZE) {
            // SAFETY: a byte of the page. A plain write of zero could be left out.
            unsafe { ptr::write_volatile(&mut page[0], 0) };
        }
        Ok(pages)
    }

    /// Address of the first byte.
    #[must_use]
    pub fn start(&self) -> usize {
        self.start
    }

    /// Number of pages.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// What is in them. Where they belong to a PAL, that is what the system sees of it.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the pages are mapped and readable as long as `self` is there.
        unsafe { slice::from_raw_parts(ptr::with_exposed_provenance(self.start), self.count * PAGE_SIZE) }
    }

    /// What is in them, to be changed; while all of them are writable.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let start = ptr::with_exposed_provenance_mut(self.start);
        // SAFETY: the pages are mapped as long as `self` is there, and nobody else has them.
        unsafe { slice::from_raw_parts_mut(start, self.count * PAGE_SIZE) }
    }

    /// Changes the rights of `count` pages from the one with the index `first` on.
    ///
    /// # Errors
    ///
    /// The pages are not all there, or the system refuses.
    pub fn protect(&mut self, first: usize, count: usize, rights: Rights) -> Result<(), Error> {
        if first.checked_add(count).is_none_or(|end| end > self.count) {
            return Err(Error::Memory { request: "protect", number: 0 });
        }
        Ok(native::protect(self.start + first * PAGE_SIZE, count * PAGE_SIZE, rights)?)
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        native::release(self.start, self.count * PAGE_SIZE);
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::Memory { request: refusal.request, number: refusal.number }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_zero_and_can_be_written() {
        let mut pages = Pages::anywhere(3).unwrap();
        assert!(pages.start().is_multiple_of(PAGE_SIZE) && pages.bytes().iter().all(|&byte| byte == 0));
        pages.bytes_mut()[2 * PAGE_SIZE] = 7;
        pages.protect(2, 1, Rights::Execute).unwrap();
        assert_eq!(pages.bytes()[2 * PAGE_SIZE], 7);
        assert!(pages.protect(2, 2, Rights::Write).is_err());
        assert!(pages.protect(usize::MAX, 2, Rights::Write).is_err());
    }

    #[test]
    fn an_address_in_use_is_not_taken_over() {
        let start = 0x6ff0_0000;
        let mut first = Pages::at(start, 2).unwrap();
        first.bytes_mut()[PAGE_SIZE] = 7;
        let second = Pages::at(start + PAGE_SIZE, 1).unwrap_err();
        assert_eq!(second, Error::AddressTaken { start: start + PAGE_SIZE });
        assert_eq!(first.bytes()[PAGE_SIZE], 7);
        drop(first);
        Pages::at(start + PAGE_SIZE, 1).unwrap();
    }
}
