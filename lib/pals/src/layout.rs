//! What a PAL consists of: checked sections with the pages behind them, its entry and its parameters.

use crate::fallible::{put, reserved};
use crate::lists::{check_sections, read_parameters, read_sections, sorted};
use crate::machine::{Cover, Inaccessible, Pages, Process, Use};
use alloc::vec::Vec;
use arrayvec::ArrayVec;
use trustvisor::flags;
use trustvisor::parameter::{ParameterType, WordSize};
use trustvisor::section::{self, SectionType};
use trustvisor::status::Status;

pub use crate::lists::Parameter;
pub use crate::machine::PAGE;

const ZEROES: [u8; 4096] = [0; 4096];

/// What a section of a registered PAL is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One of the list.
    Listed(SectionType),
    /// One that was shared later.
    Shared,
}

impl Kind {
    /// Returns whether the PAL may write it.
    #[must_use]
    pub const fn is_writable(self) -> bool {
        !matches!(self, Self::Listed(kind) if kind.is_code())
    }

    /// Returns the number that a measurement has for it.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::Listed(kind) => kind as u32,
            // As the original has it; it is never measured.
            Self::Shared => 6,
        }
    }

    /// Returns what the process sees of it while the PAL is registered.
    #[must_use]
    pub const fn cover(self) -> Cover {
        match self {
            Self::Shared => Cover::Open,
            Self::Listed(SectionType::SharedCode) => Cover::ReadOnly,
            Self::Listed(_) => Cover::Hidden,
        }
    }

    /// Returns what the process has to be able to do with the pages itself.
    #[must_use]
    ///
    /// Whatever is hidden has to be the process's own to write: nobody hides what others let it read, be it a file, a
    /// library, the system's code or a parent's page. Shared code stays there for all to read.
    pub const fn wanted(self) -> Use {
        match self {
            Self::Listed(SectionType::SharedCode) => Use::Execute,
            Self::Listed(SectionType::Code) => Use::WriteAndExecute,
            Self::Listed(_) | Self::Shared => Use::Write,
        }
    }
}

/// A section and its pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// What it is.
    pub kind: Kind,
    /// Linear address of its first page.
    pub start: u64,
    /// Number of its pages.
    pub count: u32,
    /// Physical addresses of its pages, as far as they have been taken.
    pub pages: Vec<u64>,
}

/// A page of a PAL's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundPage {
    /// Its physical address.
    pub page: u64,
    /// What its section is.
    pub kind: Kind,
}

/// Most pages that are taken, covered and given back at a time: what a processor does without an interrupt.
pub const STEP_PAGES: usize = 6;

/// Pages of one step.
pub type Step = ArrayVec<FoundPage, STEP_PAGES>;

impl Section {
    /// Returns the linear address behind its last page.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.start + u64::from(self.count) * PAGE
    }

    /// Returns whether all its pages have been taken.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.pages.len() as u64 == u64::from(self.count)
    }
}

/// A whole PAL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// In ascending order of their addresses.
    pub sections: Vec<Section>,
    /// What was shared with the process later.
    pub shared: Vec<Section>,
    /// Indices of the listed sections in the order of the list, for the measurement.
    pub listed: ArrayVec<u8, { section::CAPACITY }>,
    /// Where the PAL is entered.
    pub entry: u64,
    /// The word size of its process.
    pub word: WordSize,
    /// Its parameters.
    pub parameters: Vec<Parameter>,
    /// What it was registered with.
    pub flags: u32,
    /// It has a signed header.
    pub is_signed: bool,
}

impl Layout {
    /// Makes a PAL of nothing.
    #[must_use]
    pub const fn empty() -> Self {
        Self {
            sections: Vec::new(),
            shared: Vec::new(),
            listed: ArrayVec::new_const(),
            entry: 0,
            word: WordSize::Bits64,
            parameters: Vec::new(),
            flags: 0,
            is_signed: false,
        }
    }

    /// Reads and checks the lists of a registration; no page is taken yet.
    ///
    /// # Errors
    ///
    /// What is wrong with them.
    pub fn read(
        process: &impl Process,
        word: WordSize,
        flags: u32,
        [sections, parameters, entry]: [u64; 3],
    ) -> Result<Self, Status> {
        if flags & !flags::ALL != 0 {
            return Err(Status::FLAGS);
        }
        let records = read_sections(process, sections)?;
        check_sections(&records, word)?;
        let parameters = read_parameters(process, parameters)?;
        let listed = sorted(&records);
        let mut found = reserved(records.len())?;
        let mut order: ArrayVec<u8, { section::CAPACITY }> = listed.iter().map(|_| 0).collect();
        for (position, &index) in (0..).zip(&listed) {
            let record = &records[usize::from(index)];
            let kind = Kind::Listed(SectionType::from_number(record.kind).ok_or(Status::SECTION_TYPE)?);
            let pages = reserved(usize::try_from(record.pages).map_err(|_| Status::SECTION_SIZE)?)?;
            put(&mut found, Section { kind, start: record.start, count: record.pages, pages })?;
            order[usize::from(index)] = position;
        }
        let (sections, listed) = (found, order);
        let (shared, is_signed) = (Vec::new(), false);
        let layout = Self { sections, shared, listed, entry, word, parameters, flags, is_signed };
        layout.check()?;
        Ok(layout)
    }

    /// Finds the next pages that are to be taken, each checked for what its section is. None are left where there are
    /// none.
    ///
    /// # Errors
    ///
    /// [`Status::SECTION_NOT_MAPPED`] or [`Status::PAGE_NOT_MEMORY`].
    pub fn find_next(&self, process: &impl Process, memory: &impl Pages) -> Result<Step, Status> {
        let missing = self.sections.iter().flat_map(|section| {
            let taken = section.pages.len() as u64..u64::from(section.count);
            taken.map(|index| (section.start + index * PAGE, section.kind))
        });
        missing
            .take(STEP_PAGES)
            .map(|(linear, kind)| Ok(FoundPage { page: find_page(process, memory, kind, linear)?, kind }))
            .collect()
    }

    /// Takes what [`Self::find_next`] found.
    pub fn take(&mut self, step: &Step) {
        let mut pages = step.iter().map(|found| found.page);
        for section in self.sections.iter_mut().filter(|section| !section.is_whole()) {
            let room = usize::try_from(section.count).unwrap_or(0) - section.pages.len();
            for page in pages.by_ref().take(room) {
                // The room for them is reserved.
                let _ = put(&mut section.pages, page);
            }
        }
    }

    /// Returns the page that was taken last.
    #[must_use]
    pub fn last_taken(&self) -> Option<u64> {
        self.sections.iter().rev().find_map(|section| section.pages.last().copied())
    }

    /// Returns whether all pages have been taken.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.sections.iter().all(Section::is_whole)
    }

    /// Returns the physical address behind `linear`, for a PAL's read or, with `is_write`, its write.
    #[must_use]
    pub fn translate(&self, linear: u64, is_write: bool) -> Option<u64> {
        let behind = self.sections.partition_point(|section| section.start <= linear);
        let listed = behind.checked_sub(1).and_then(|last| self.sections.get(last));
        let section =
            listed.into_iter().chain(&self.shared).find(|s| (s.start..s.end()).contains(&linear))?;
        let index = usize::try_from((linear - section.start) / PAGE).ok()?;
        let page = section.pages.get(index).filter(|_| !is_write || section.kind.is_writable())?;
        Some(page + linear % PAGE)
    }

    /// Calls `act` with each piece of `[linear, linear + length)` that lies in one page: its physical address,
    /// its offset and its length.
    ///
    /// # Errors
    ///
    /// [`Inaccessible`] where the PAL cannot access a piece; those before were acted on.
    pub fn pieces(
        &self,
        linear: u64,
        length: usize,
        is_write: bool,
        mut act: impl FnMut(u64, usize, usize),
    ) -> Result<(), Inaccessible> {
        let mut done = 0;
        while done < length {
            let at = linear.checked_add(done as u64).ok_or(Inaccessible)?;
            let room = usize::try_from(PAGE - at % PAGE).map_err(|_| Inaccessible)?;
            let count = room.min(length - done);
            act(self.translate(at, is_write).ok_or(Inaccessible)?, done, count);
            done += count;
        }
        Ok(())
    }

    /// Returns the one section of this type.
    #[must_use]
    pub fn section(&self, kind: SectionType) -> Option<&Section> {
        self.sections.iter().find(|section| section.kind == Kind::Listed(kind))
    }

    /// Returns every section, the shared ones behind the others.
    pub fn all_sections(&self) -> impl Iterator<Item = &Section> {
        self.sections.iter().chain(&self.shared)
    }

    /// Each page with its section.
    pub fn pages(&self) -> impl Iterator<Item = (u64, &Section)> {
        self.all_sections().flat_map(|section| section.pages.iter().map(move |&page| (page, section)))
    }

    /// Runs of pages (linear address, count), ascending but for the shared ones.
    pub fn runs(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.all_sections().map(|section| (section.start, section.count.into()))
    }

    /// Returns the next pages from the one with the index `first` on.
    #[must_use]
    pub fn step_from(&self, first: usize) -> Step {
        let mut step = Step::new();
        let mut skipped = first;
        for section in self.all_sections() {
            let pages = section.pages.get(skipped..).unwrap_or_default();
            skipped = skipped.saturating_sub(section.pages.len());
            let room = step.remaining_capacity();
            step.extend(pages.iter().take(room).map(|&page| FoundPage { page, kind: section.kind }));
        }
        step
    }

    /// Fills every page with zeros.
    pub fn zero_all(&self, memory: &impl Pages) {
        self.pages().for_each(|(page, _)| memory.write(page, &ZEROES));
    }

    /// Returns the physical address of the page that the entry is in.
    #[must_use]
    pub fn entry_page(&self) -> Option<u64> {
        self.translate(self.entry, false).map(|entry| entry - entry % PAGE)
    }

    /// Gives up every page but the entry's.
    pub fn keep_entry_page(&mut self) {
        let (start, page) = (self.entry - self.entry % PAGE, self.entry_page());
        let kind = Kind::Listed(SectionType::Code);
        self.shared = Vec::new();
        self.parameters = Vec::new();
        self.listed.clear();
        // In the room that is there.
        self.sections.truncate(1);
        match (page, self.sections.first_mut()) {
            (Some(page), Some(section)) => {
                section.pages.truncate(1);
                section.pages.fill(page);
                (section.kind, section.start, section.count) = (kind, start, 1);
            }
            _ => self.sections.clear(),
        }
    }

    /// Returns the number of bytes of the parameter section that a call fills.
    #[must_use]
    pub fn parameter_bytes(&self) -> Option<u64> {
        self.parameters.iter().try_fold(trustvisor::call::PARAMETER_HEADER_BYTES, |sum, parameter| {
            let words = match parameter.kind {
                ParameterType::Integer => 0,
                ParameterType::Pointer => parameter.words,
            };
            let words = words.checked_add(trustvisor::call::PARAMETER_RECORD_WORDS)?;
            sum.checked_add(words.checked_mul(self.word.bytes())?)
        })
    }

    fn check(&self) -> Result<(), Status> {
        let stack = self.section(SectionType::Stack).ok_or(Status::SECTION_MISSING)?;
        let room = self.section(SectionType::Parameters);
        if !self.parameters.is_empty() && room.is_none() {
            return Err(Status::SECTION_MISSING);
        }
        let bytes = self.parameter_bytes().ok_or(Status::PARAMETER_SIZE)?;
        if room.is_some_and(|room| room.end() - room.start < bytes && !self.parameters.is_empty()) {
            return Err(Status::PARAMETER_SIZE);
        }
        debug_assert!(stack.end() - stack.start > 1024, "a page holds the words of 64 parameters");
        let entry = self.sections.iter().find(|s| (s.start..s.end()).contains(&self.entry));
        match entry.map(|section| section.kind) {
            Some(Kind::Listed(SectionType::Code)) => Ok(()),
            _ => Err(Status::ENTRY_NOT_CODE),
        }
    }
}

/// Fills a page with zeros, where the PAL could write it and the process not see it.
pub fn zero(memory: &impl Pages, found: FoundPage) {
    if found.kind.is_writable() && found.kind != Kind::Shared {
        memory.write(found.page, &ZEROES);
    }
}

fn find_page(process: &impl Process, memory: &impl Pages, kind: Kind, linear: u64) -> Result<u64, Status> {
    let page = process.page(linear, kind.wanted()).map_err(|Inaccessible| Status::SECTION_NOT_MAPPED)?;
    if memory.is_memory(page) { Ok(page) } else { Err(Status::PAGE_NOT_MEMORY) }
}

/// Returns the physical addresses of `count` pages from the linear address `start` on.
///
/// # Errors
///
/// [`Status::SECTION_NOT_MAPPED`], [`Status::PAGE_NOT_MEMORY`] or [`Status::OUT_OF_MEMORY`].
pub fn find_run(
    process: &impl Process,
    memory: &impl Pages,
    kind: Kind,
    start: u64,
    count: u64,
) -> Result<Vec<u64>, Status> {
    let mut pages = reserved(usize::try_from(count).map_err(|_| Status::SECTION_SIZE)?)?;
    for linear in (0..count).map(|index| start + index * PAGE) {
        put(&mut pages, find_page(process, memory, kind, linear)?)?;
    }
    Ok(pages)
}

#[cfg(test)]
#[path = "layout_tests.rs"]
mod tests;
