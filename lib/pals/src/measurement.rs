//! What a PAL was registered as, for the first of its registers.
//!
//! Hashing takes more time than all else of a registration, and most PALs never ask. So it is put off until the
//! first command that wants a register. By then the PAL may have written: of each page that it can write the
//! content is kept, as one word where it is nothing but that. Code stays as it was, for nobody can write it.

use crate::layout::{Layout, PAGE, Section};
use crate::machine::Pages;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering};
use microtpm::{PcrBanks, SectionMeasurement};
use zeroize::optimization_barrier;

/// Most bytes of content that are kept, for all PALs together; beyond, a PAL is measured at its registration.
pub const KEPT_BYTES_LIMIT: usize = 256 << 10;
/// Most pages that one step hashes.
const STEP_PAGES: usize = 16;
const PAGE_BYTES: usize = 4096;

/// Bytes of content that are kept now.
static KEPT_BYTES: AtomicUsize = AtomicUsize::new(0);

/// A PAL's registers, and what is still to be hashed into the first.
#[derive(Debug)]
pub struct Measurement {
    banks: PcrBanks,
    /// What the PAL's writable pages held, in the order in which they are hashed; `None` where they still hold it.
    kept: Option<Vec<Content>>,
    /// Position in the list of the section that is hashed; behind the last one all is done.
    section: usize,
    /// Pages of it that are hashed.
    page: usize,
    /// Writable pages of all sections that are hashed.
    writable: usize,
    current: Option<SectionMeasurement>,
}

/// What a page held.
#[derive(Debug)]
enum Content {
    /// This word, over and over.
    Filled(u64),
    Bytes(Kept),
}

/// A page's bytes; they count for the limit, and are zeroed when they go.
#[derive(Debug)]
struct Kept(Vec<u8>);

impl Measurement {
    /// Begins, for a PAL whose pages nobody can write any more, and that has not run.
    #[must_use]
    pub fn new(layout: &Layout, memory: &impl Pages) -> Self {
        let kept = keep(layout, memory);
        let is_late = kept.is_some();
        let banks = PcrBanks::new();
        let mut measurement = Self { banks, kept, section: 0, page: 0, writable: 0, current: None };
        if !is_late {
            while measurement.step(layout, memory).is_none() {}
        }
        measurement
    }

    /// The registers, or a step towards them.
    pub fn step(&mut self, layout: &Layout, memory: &impl Pages) -> Option<&mut PcrBanks> {
        let mut budget = STEP_PAGES;
        while let Some(section) = listed(layout).nth(self.section) {
            if budget == 0 {
                return None;
            }
            self.go_on(section, memory, &mut budget);
        }
        self.kept = None;
        Some(&mut self.banks)
    }

    /// Hashes up to `budget` pages of `section`, and ends it where that was all.
    fn go_on(&mut self, section: &Section, memory: &impl Pages, budget: &mut usize) {
        let size = section.pages.len() as u64 * PAGE;
        let kind = section.kind.number();
        let start = || SectionMeasurement::new(kind, section.start, size);
        let mut current = self.current.take().unwrap_or_else(start);
        let mut bytes = [0; PAGE_BYTES];
        for &page in section.pages.iter().skip(self.page).take(*budget) {
            let content = self.kept.as_ref().filter(|_| section.kind.is_writable());
            match content.and_then(|kept| kept.get(self.writable)) {
                Some(content) => content.copy_to(&mut bytes),
                None => memory.read(page, &mut bytes),
            }
            current.update(&bytes);
            self.writable += usize::from(section.kind.is_writable());
            self.page += 1;
            *budget -= 1;
        }
        erase(&mut bytes);
        if self.page == section.pages.len() {
            self.banks.extend_section(&current.finish());
            (self.section, self.page) = (self.section + 1, 0);
        } else {
            self.current = Some(current);
        }
    }
}

/// The sections of the registration's list, in its order.
fn listed(layout: &Layout) -> impl Iterator<Item = &Section> {
    layout.listed.iter().filter_map(|&index| layout.sections.get(usize::from(index)))
}

/// The contents of all writable pages; `None` where there is no room for them.
fn keep(layout: &Layout, memory: &impl Pages) -> Option<Vec<Content>> {
    let pages = || {
        let writable = listed(layout).filter(|section| section.kind.is_writable());
        writable.flat_map(|section| section.pages.iter().copied())
    };
    let mut kept = Vec::new();
    kept.try_reserve_exact(pages().count()).ok()?;
    let mut bytes = [0; PAGE_BYTES];
    for page in pages() {
        memory.read(page, &mut bytes);
        kept.push(Content::new(&bytes)?);
    }
    erase(&mut bytes);
    Some(kept)
}

impl Content {
    fn new(bytes: &[u8; PAGE_BYTES]) -> Option<Self> {
        let (words, _) = bytes.as_chunks::<8>();
        if words.iter().all(|word| *word == words[0]) {
            return Some(Self::Filled(u64::from_le_bytes(words[0])));
        }
        Kept::new(bytes).map(Self::Bytes)
    }

    fn copy_to(&self, bytes: &mut [u8; PAGE_BYTES]) {
        match self {
            Self::Filled(word) => bytes.as_chunks_mut().0.fill(word.to_le_bytes()),
            Self::Bytes(kept) => bytes.copy_from_slice(&kept.0),
        }
    }
}

impl Kept {
    fn new(bytes: &[u8]) -> Option<Self> {
        let grown = |all: usize| all.checked_add(bytes.len()).filter(|&all| all <= KEPT_BYTES_LIMIT);
        KEPT_BYTES.try_update(Ordering::Relaxed, Ordering::Relaxed, grown).ok()?;
        // From here on dropping it gives the bytes back to the limit.
        let mut kept = Self(Vec::new());
        if kept.0.try_reserve_exact(bytes.len()).is_err() {
            KEPT_BYTES.fetch_sub(bytes.len(), Ordering::Relaxed);
            return None;
        }
        kept.0.extend_from_slice(bytes);
        Some(kept)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        KEPT_BYTES.fetch_sub(self.0.len(), Ordering::Relaxed);
        erase(&mut self.0);
    }
}

/// Zeroes page contents at the speed of a fill; byte by byte, as `zeroize` has it, takes longer than all else of an
/// unregistration.
fn erase(bytes: &mut [u8]) {
    bytes.fill(0);
    optimization_barrier(bytes);
}

#[cfg(test)]
#[path = "measurement_tests.rs"]
mod tests;
