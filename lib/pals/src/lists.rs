//! The two lists of a registration, read out of the process and checked.

use crate::fallible::{put, reserved};
use crate::machine::{Inaccessible, PAGE, Process};
use alloc::vec::Vec;
use arrayvec::ArrayVec;
use trustvisor::parameter::{self, ParameterRecord, ParameterType, WordSize};
use trustvisor::section::{self, SectionRecord, SectionType};
use trustvisor::status::Status;

/// A parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// What it is.
    pub kind: ParameterType,
    /// Size in words.
    pub words: u64,
}

/// First address behind what programs have, in 64-bit mode with four levels of tables.
pub(crate) const USER_END_64: u64 = 1 << 47;
pub(crate) const USER_END_32: u64 = 1 << 32;

/// Checks addresses and sizes of a section that begins at `start`.
///
/// # Errors
///
/// [`Status::SECTION_SIZE`] or [`Status::SECTION_ADDRESS`].
pub(crate) fn check_range(word: WordSize, start: u64, pages: u64) -> Result<(), Status> {
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

pub(crate) fn read_sections(
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

pub(crate) fn read_parameters(process: &impl Process, list: u64) -> Result<Vec<Parameter>, Status> {
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
        put(&mut parameters, Parameter { kind, words: record.words })?;
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

pub(crate) fn check_sections(records: &[SectionRecord], word: WordSize) -> Result<(), Status> {
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
pub(crate) fn sorted(records: &[SectionRecord]) -> ArrayVec<u8, { section::CAPACITY }> {
    let mut order: ArrayVec<u8, { section::CAPACITY }> = (0..).zip(records).map(|(index, _)| index).collect();
    order.sort_unstable_by_key(|&index: &u8| records[usize::from(index)].start);
    order
}
