//! What a PAL consists of: checked sections with the pages behind them, its entry and its parameters.

use crate::machine::{Cover, Inaccessible, Pages, Process, Use};
use alloc::vec::Vec;
use arrayvec::ArrayVec;
use trustvisor::parameter::{self, ParameterRecord, ParameterType, WordSize};
use trustvisor::section::{self, SectionRecord, SectionType};
use trustvisor::status::Status;

/// Bytes of a page.
pub const PAGE: u64 = 4096;
/// First address behind what programs have, in 64-bit mode with four levels of tables.
const USER_END_64: u64 = 1 << 47;
const USER_END_32: u64 = 1 << 32;
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
    /// The PAL may write it.
    #[must_use]
    pub const fn is_writable(self) -> bool {
        !matches!(self, Self::Listed(kind) if kind.is_code())
    }

    /// The number that a measurement has for it.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::Listed(kind) => kind as u32,
            // As the original has it; it is never measured.
            Self::Shared => 6,
        }
    }

    /// What the process sees of it while the PAL is registered.
    #[must_use]
    pub const fn cover(self) -> Cover {
        match self {
            Self::Shared => Cover::Open,
            Self::Listed(SectionType::SharedCode) => Cover::ReadOnly,
            Self::Listed(_) => Cover::Hidden,
        }
    }

    /// What the process has to be able to do with the pages itself.
    #[must_use]
    pub const fn wanted(self) -> Use {
        if self.is_writable() { Use::Write } else { Use::Execute }
    }
}

/// A section and its pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// What it is.
    pub kind: Kind,
    /// Linear address of its first page.
    pub start: u64,
    /// Physical addresses of its pages.
    pub pages: Vec<u64>,
}

impl Section {
    /// Linear address behind its last page.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.start + self.pages.len() as u64 * PAGE
    }
}

/// A parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// What it is.
    pub kind: ParameterType,
    /// Size in words.
    pub words: u64,
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
}

impl Layout {
    /// Reads and checks the lists of a registration, and finds the pages.
    ///
    /// # Errors
    ///
    /// What is wrong with them.
    pub fn read(
        process: &impl Process,
        pages: &impl Pages,
        word: WordSize,
        [sections, parameters, entry]: [u64; 3],
    ) -> Result<Self, Status> {
        let records = read_sections(process, sections)?;
        check_sections(&records, word)?;
        let parameters = read_parameters(process, parameters)?;
        let listed = sorted(&records);
        let mut found = reserved(records.len())?;
        for &index in &listed {
            found.push(find_pages(process, pages, &records[usize::from(index)])?);
        }
        let mut order: ArrayVec<u8, { section::CAPACITY }> = listed.iter().map(|_| 0).collect();
        for (position, &index) in (0..).zip(&listed) {
            order[usize::from(index)] = position;
        }
        let layout = Self { sections: found, shared: Vec::new(), listed: order, entry, word, parameters };
        layout.check()?;
        Ok(layout)
    }

    /// Physical address behind `linear`, for a PAL's read or, with `is_write`, its write.
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

    /// The one section of this type.
    #[must_use]
    pub fn section(&self, kind: SectionType) -> Option<&Section> {
        self.sections.iter().find(|section| section.kind == Kind::Listed(kind))
    }

    /// Every section, the shared ones behind the others.
    pub fn all_sections(&self) -> impl Iterator<Item = &Section> {
        self.sections.iter().chain(&self.shared)
    }

    /// Each page with its section.
    pub fn pages(&self) -> impl Iterator<Item = (u64, &Section)> {
        self.all_sections().flat_map(|section| section.pages.iter().map(move |&page| (page, section)))
    }

    /// Runs of pages (linear address, count), ascending but for the shared ones.
    pub fn runs(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.all_sections().map(|section| (section.start, section.pages.len() as u64))
    }

    /// Fills every page that the PAL could write, and the process not see, with zeros.
    pub fn zero(&self, memory: &impl Pages) {
        let is_secret = |section: &Section| section.kind.is_writable() && section.kind != Kind::Shared;
        for (page, _) in self.pages().filter(|(_, section)| is_secret(section)) {
            memory.write(page, &ZEROES);
        }
    }

    /// Fills every page with zeros.
    pub fn zero_all(&self, memory: &impl Pages) {
        self.pages().for_each(|(page, _)| memory.write(page, &ZEROES));
    }

    /// Physical address of the page that the entry is in.
    #[must_use]
    pub fn entry_page(&self) -> Option<u64> {
        self.translate(self.entry, false).map(|entry| entry - entry % PAGE)
    }

    /// Gives up every page but the entry's.
    pub fn keep_entry_page(&mut self) {
        let (start, page) = (self.entry - self.entry % PAGE, self.entry_page());
        let kind = Kind::Listed(SectionType::Code);
        let kept = page.map(|page| Section { kind, start, pages: [page].into() });
        self.sections = kept.into_iter().collect();
        (self.shared, self.parameters) = (Vec::new(), Vec::new());
        self.listed.clear();
    }

    /// Bytes of the parameter section that a call fills.
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

/// Physical addresses of a section's pages, each checked for what the section is.
///
/// # Errors
///
/// [`Status::SECTION_NOT_MAPPED`], [`Status::PAGE_NOT_MEMORY`] or [`Status::OUT_OF_MEMORY`].
fn find_pages(
    process: &impl Process,
    memory: &impl Pages,
    record: &SectionRecord,
) -> Result<Section, Status> {
    let kind = SectionType::from_number(record.kind).ok_or(Status::SECTION_TYPE)?;
    let kind = Kind::Listed(kind);
    let pages = find_run(process, memory, kind, record.start, u64::from(record.pages))?;
    Ok(Section { kind, start: record.start, pages })
}

/// Physical addresses of `count` pages from the linear address `start` on.
///
/// # Errors
///
/// As for `find_pages`.
pub fn find_run(
    process: &impl Process,
    memory: &impl Pages,
    kind: Kind,
    start: u64,
    count: u64,
) -> Result<Vec<u64>, Status> {
    let mut pages = reserved(usize::try_from(count).map_err(|_| Status::SECTION_SIZE)?)?;
    for linear in (0..count).map(|index| start + index * PAGE) {
        let page = process.page(linear, kind.wanted()).map_err(|Inaccessible| Status::SECTION_NOT_MAPPED)?;
        if !memory.is_memory(page) {
            return Err(Status::PAGE_NOT_MEMORY);
        }
        pages.push(page);
    }
    Ok(pages)
}

/// Checks addresses and sizes of a section that begins at `start`.
///
/// # Errors
///
/// [`Status::SECTION_SIZE`] or [`Status::SECTION_ADDRESS`].
pub fn check_range(word: WordSize, start: u64, pages: u64) -> Result<(), Status> {
    if pages == 0 || pages > section::PAGES_LIMIT {
        return Err(Status::SECTION_SIZE);
    }
    let limit = match word {
        WordSize::Bits32 => USER_END_32,
        WordSize::Bits64 => USER_END_64,
    };
    let end = start.checked_add(pages * PAGE).ok_or(Status::SECTION_ADDRESS)?;
    if start == 0 || !start.is_multiple_of(PAGE) || end > limit {
        return Err(Status::SECTION_ADDRESS);
    }
    Ok(())
}

fn read_sections(
    process: &impl Process,
    list: u64,
) -> Result<ArrayVec<SectionRecord, { section::CAPACITY }>, Status> {
    let count = read_count(process, list)?;
    if count == 0 || count > section::CAPACITY {
        return Err(Status::SECTION_COUNT);
    }
    let mut bytes = [0; section::CAPACITY * section::RECORD_BYTES];
    let records = read_records(process, list, &mut bytes[..count * section::RECORD_BYTES])?;
    Ok(records.iter().map(SectionRecord::from_bytes).collect())
}

fn read_parameters(process: &impl Process, list: u64) -> Result<Vec<Parameter>, Status> {
    if list == 0 {
        return Ok(Vec::new());
    }
    let count = read_count(process, list)?;
    if count > parameter::CAPACITY {
        return Err(Status::PARAMETER_COUNT);
    }
    let mut parameters = reserved(count)?;
    let mut bytes = [0; parameter::CAPACITY * parameter::RECORD_BYTES];
    for record in read_records(process, list, &mut bytes[..count * parameter::RECORD_BYTES])? {
        let record = ParameterRecord::from_bytes(record);
        let kind = ParameterType::from_number(record.kind).ok_or(Status::PARAMETER_TYPE)?;
        parameters.push(Parameter { kind, words: record.words });
    }
    Ok(parameters)
}

fn read_count(process: &impl Process, list: u64) -> Result<usize, Status> {
    let mut bytes = [0; 4];
    process.read(list, &mut bytes).map_err(|Inaccessible| Status::BAD_ADDRESS)?;
    usize::try_from(u32::from_le_bytes(bytes)).map_err(|_| Status::SECTION_COUNT)
}

/// Reads the records of a list; both lists have the same shape.
fn read_records<'a>(
    process: &impl Process,
    list: u64,
    bytes: &'a mut [u8],
) -> Result<&'a [[u8; section::RECORD_BYTES]], Status> {
    const { assert!(section::RECORD_BYTES == parameter::RECORD_BYTES) };
    let address = list.checked_add(section::HEADER_BYTES as u64).ok_or(Status::BAD_ADDRESS)?;
    address.checked_add(bytes.len() as u64).ok_or(Status::BAD_ADDRESS)?;
    process.read(address, bytes).map_err(|Inaccessible| Status::BAD_ADDRESS)?;
    Ok(bytes.as_chunks().0)
}

fn check_sections(records: &[SectionRecord], word: WordSize) -> Result<(), Status> {
    let count = |kind: SectionType| records.iter().filter(|record| record.kind == kind as u32).count();
    for record in records {
        SectionType::from_number(record.kind).ok_or(Status::SECTION_TYPE)?;
        check_range(word, record.start, u64::from(record.pages))?;
    }
    if records.iter().map(|record| u64::from(record.pages)).sum::<u64>() > section::PAGES_LIMIT {
        return Err(Status::SECTION_SIZE);
    }
    let end = |record: &SectionRecord| record.start + u64::from(record.pages) * PAGE;
    let overlaps = |(index, one): (usize, &SectionRecord)| {
        records[..index].iter().any(|other| one.start < end(other) && other.start < end(one))
    };
    if records.iter().enumerate().any(overlaps) {
        return Err(Status::SECTION_OVERLAP);
    }
    if count(SectionType::Code) == 0 || count(SectionType::Stack) != 1 || count(SectionType::Parameters) > 1 {
        return Err(Status::SECTION_MISSING);
    }
    Ok(())
}

/// Indices of the records by ascending address.
fn sorted(records: &[SectionRecord]) -> ArrayVec<u8, { section::CAPACITY }> {
    let mut order: ArrayVec<u8, { section::CAPACITY }> = (0..).zip(records).map(|(index, _)| index).collect();
    order.sort_unstable_by_key(|&index: &u8| records[usize::from(index)].start);
    order
}

/// An empty vector with room for `count`; memory that is out is the program's error, not ours.
pub(crate) fn reserved<T>(count: usize) -> Result<Vec<T>, Status> {
    let mut items = Vec::new();
    items.try_reserve_exact(count).map_err(|_| Status::OUT_OF_MEMORY)?;
    Ok(items)
}

#[cfg(test)]
#[path = "layout_tests.rs"]
mod tests;
