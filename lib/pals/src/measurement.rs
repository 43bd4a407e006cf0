//! What a PAL was registered as, for the first of its registers.
//!
//! Hashing takes more time than all else of a registration, and most PALs never ask. So it is put off until the
//! first command that wants a register. By then the PAL may have written: of each page that it can write the
//! content is kept, as one word where it is nothing but that. Code stays as it was, for nobody can write it. Where
//! there is no room to keep a page, the PAL is measured before it can be called.
//!
//! It goes by pieces, and while one is hashed nothing is locked.

use crate::fallible::{copied, put, reserved};
use crate::layout::{FoundPage, Layout, Section, Step};
use crate::machine::Pages;
use crate::signing::{self, Signing};
use alloc::vec::Vec;
use core::mem;
use core::sync::atomic::{AtomicUsize, Ordering};
use microtpm::{Header, HeaderMeasurement, HeaderSection, PcrBanks, PcrIndex, SectionMeasurement};
use trustvisor::parameter::WordSize;
use zeroize::optimization_barrier;

/// Most bytes of content that are kept, for all PALs together; beyond, a PAL is measured at its registration.
pub const KEPT_BYTES_LIMIT: usize = 256 << 10;
/// Bytes of a piece: hashing it takes less than a processor may go without interrupts.
const PIECE_BYTES: usize = 512;
/// Sections and parameters of a header that are hashed at a time.
const HEADER_RECORDS: usize = 16;
const PAGE_BYTES: usize = 4096;
/// Most pages that are forgotten at a time: each is zeroed.
const FORGOTTEN_PAGES: usize = 16;

/// Bytes of content that are kept now.
static KEPT_BYTES: AtomicUsize = AtomicUsize::new(0);

/// A PAL's registers, and what is still to be hashed into the first.
#[derive(Debug)]
pub struct Measurement {
    banks: PcrBanks,
    /// What the PAL's writable pages held, in the order of their addresses.
    kept: Vec<Content>,
    /// Else they still hold it, and what was kept is forgotten step by step.
    is_kept: bool,
    /// Position in the list of the section that is hashed; behind the last one all is done.
    section: usize,
    /// Bytes of it that are hashed.
    offset: usize,
    current: Option<SectionMeasurement>,
    header: HeaderProgress,
    /// Whose the PAL is, to be found out behind all that.
    pub signing: Signing,
}

/// How far the hash of the header is.
#[derive(Debug)]
enum HeaderProgress {
    Missing,
    /// So many sections and parameters are hashed.
    Begun(HeaderMeasurement, usize),
    Done,
}

/// A part of a section, with the state of its hash.
#[derive(Debug)]
pub struct Piece {
    section: SectionMeasurement,
    bytes: [u8; PIECE_BYTES],
    is_last: bool,
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
    /// Begins, for a PAL of which no page has been taken.
    #[must_use]
    pub fn new(layout: &Layout, signing: Signing) -> Self {
        let writable = layout.sections.iter().filter(|section| section.kind.is_writable());
        let count = writable.map(|section| usize::try_from(section.count).unwrap_or(usize::MAX));
        let reserved = reserved(count.fold(0, usize::saturating_add));
        let (is_kept, kept) = (reserved.is_ok(), reserved.unwrap_or_default());
        let (banks, current) = (PcrBanks::new(), None);
        Self {
            banks,
            kept,
            is_kept,
            section: 0,
            offset: 0,
            current,
            header: HeaderProgress::Missing,
            signing,
        }
    }

    /// Keeps what pages hold that nobody can write any more, and that the PAL will.
    pub fn keep(&mut self, step: &Step, memory: &impl Pages) {
        let mut bytes = [0; PAGE_BYTES];
        for FoundPage { page, .. } in step.iter().filter(|found| found.kind.is_writable()) {
            if !self.is_kept {
                break;
            }
            memory.read(*page, &mut bytes);
            self.is_kept = Content::new(&bytes).is_some_and(|content| put(&mut self.kept, content).is_ok());
        }
        erase(&mut bytes);
    }

    /// Everything that the PAL can write is kept: it may run before it is measured.
    #[must_use]
    pub const fn is_kept(&self) -> bool {
        self.is_kept
    }

    /// What was kept is of no use any more: [`Self::forget`] has it go.
    pub const fn give_up(&mut self) {
        self.is_kept = false;
    }

    /// Forgets some of what is of no use; false where that was the last.
    pub fn forget(&mut self) -> bool {
        if self.is_kept {
            return false;
        }
        self.kept.truncate(self.kept.len().saturating_sub(FORGOTTEN_PAGES));
        !self.kept.is_empty()
    }

    /// Returns the registers, where all is hashed.
    pub fn banks(&mut self, layout: &Layout) -> Option<&mut PcrBanks> {
        (self.section >= layout.listed.len()).then_some(&mut self.banks)
    }

    /// Returns the next step towards the PAL's signer, where all is hashed; see [`Signing::take`].
    pub fn take_signing(&mut self) -> Option<signing::Step> {
        self.signing.take(self.banks.read(PcrIndex::FIRST_SHA256))
    }

    /// Hashes a part of the header, which comes first; false where that is done.
    pub fn hash_header(&mut self, layout: &Layout) -> bool {
        let header = header(layout);
        let (mut measurement, done) = match mem::replace(&mut self.header, HeaderProgress::Done) {
            HeaderProgress::Done => return false,
            HeaderProgress::Missing => (header.begin(), 0),
            HeaderProgress::Begun(measurement, done) => (measurement, done),
        };
        let sections = header.sections.clone().skip(done).take(HEADER_RECORDS);
        let missing = sections.fold(HEADER_RECORDS, |room, section| {
            measurement.section(section);
            room - 1
        });
        let passed = done.saturating_sub(layout.listed.len());
        let parameters = header.parameters.skip(passed).take(missing);
        parameters.for_each(|parameter| measurement.parameter(parameter));
        let done = done + HEADER_RECORDS;
        if done < layout.listed.len() + layout.parameters.len() {
            self.header = HeaderProgress::Begun(measurement, done);
        } else {
            self.banks.extend_header(&measurement.finish());
        }
        true
    }

    /// Returns the next piece, which has to come back by [`Self::give`]; `None` where there is none, or one is out.
    pub fn take(&mut self, layout: &Layout, memory: &impl Pages) -> Option<Piece> {
        let &index = layout.listed.get(self.section)?;
        let index = usize::from(index);
        let section = layout.sections.get(index)?;
        if self.current.is_none() && self.offset != 0 {
            return None;
        }
        let size = section.pages.len() * PAGE_BYTES;
        let begin = || SectionMeasurement::new(section.kind.number(), section.start, size as u64);
        let mut piece = Piece {
            section: self.current.take().unwrap_or_else(begin),
            bytes: [0; PIECE_BYTES],
            is_last: self.offset + PIECE_BYTES >= size,
        };
        let (page, at) = (self.offset / PAGE_BYTES, self.offset % PAGE_BYTES);
        let is_kept = self.is_kept && section.kind.is_writable();
        match self.kept.get(writable_before(layout, index) + page).filter(|_| is_kept) {
            Some(content) => content.copy_to(at, &mut piece.bytes),
            None => memory.read(*section.pages.get(page)? + at as u64, &mut piece.bytes),
        }
        self.offset += PIECE_BYTES;
        Some(piece)
    }

    /// Takes a piece back that was hashed.
    pub fn give(&mut self, layout: &Layout, piece: Piece) {
        if !piece.is_last {
            self.current = Some(piece.section);
            return;
        }
        self.banks.extend_section(&piece.section.finish());
        (self.section, self.offset) = (self.section + 1, 0);
        if self.section >= layout.listed.len() {
            self.give_up();
        }
    }
}

impl Piece {
    /// Hashes it.
    pub fn hash(&mut self) {
        self.section.update(&self.bytes);
        erase(&mut self.bytes);
    }
}

/// Writable pages of the sections before the one with this index, by their addresses.
fn writable_before(layout: &Layout, index: usize) -> usize {
    let writable = layout.sections[..index].iter().filter(|section| section.kind.is_writable());
    writable.map(|section| section.pages.len()).sum()
}

/// Returns the header.
fn header(
    layout: &Layout,
) -> Header<impl Iterator<Item = HeaderSection> + Clone + '_, impl Iterator<Item = (u32, u64)> + Clone + '_> {
    let listed = layout.listed.iter().filter_map(|&index| layout.sections.get(usize::from(index)));
    let sections = listed.map(|section: &Section| HeaderSection {
        kind: section.kind.number(),
        start: section.start,
        size: section.end() - section.start,
    });
    let parameters = layout.parameters.iter().map(|parameter| (parameter.kind as u32, parameter.words));
    let word_bytes = if layout.word == WordSize::Bits64 { 8 } else { 4 };
    Header { word_bytes, flags: layout.flags, entry: layout.entry, sections, parameters }
}

impl Content {
    fn new(bytes: &[u8; PAGE_BYTES]) -> Option<Self> {
        let (words, _) = bytes.as_chunks::<8>();
        if words.iter().all(|word| *word == words[0]) {
            return Some(Self::Filled(u64::from_le_bytes(words[0])));
        }
        Kept::new(bytes).map(Self::Bytes)
    }

    /// The bytes from `at` on.
    fn copy_to(&self, at: usize, bytes: &mut [u8; PIECE_BYTES]) {
        match self {
            Self::Filled(word) => bytes.as_chunks_mut().0.fill(word.to_le_bytes()),
            Self::Bytes(kept) => bytes.copy_from_slice(&kept.0[at..at + PIECE_BYTES]),
        }
    }
}

impl Kept {
    fn new(bytes: &[u8]) -> Option<Self> {
        let grown = |all: usize| all.checked_add(bytes.len()).filter(|&all| all <= KEPT_BYTES_LIMIT);
        KEPT_BYTES.try_update(Ordering::Relaxed, Ordering::Relaxed, grown).ok()?;
        let Ok(kept) = copied(bytes) else {
            KEPT_BYTES.fetch_sub(bytes.len(), Ordering::Relaxed);
            return None;
        };
        // From here on dropping it gives the bytes back to the limit.
        Some(Self(kept))
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
