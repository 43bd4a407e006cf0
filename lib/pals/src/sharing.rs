//! The lists of what a process shares with its PAL.

use crate::layout::{Kind, PAGE, Section, check_range, find_run, reserved};
use crate::machine::{Inaccessible, Pages, Process};
use alloc::vec::Vec;
use trustvisor::parameter::WordSize;
use trustvisor::section;
use trustvisor::status::Status;

/// Reads and checks what a process shares: `count` u32 addresses and as many u32 lengths.
///
/// # Errors
///
/// What is wrong with them.
pub fn read_shared(
    process: &impl Process,
    memory: &impl Pages,
    word: WordSize,
    [addresses, lengths, count]: [u64; 3],
) -> Result<Vec<Section>, Status> {
    let count = usize::try_from(count).ok().filter(|count| (1..=section::CAPACITY).contains(count));
    let count = count.ok_or(Status::SECTION_COUNT)?;
    let number = |array: u64, index: usize| -> Result<u64, Status> {
        let mut bytes = [0; 4];
        let address = array.checked_add(4 * index as u64).ok_or(Status::BAD_ADDRESS)?;
        process.read(address, &mut bytes).map_err(|Inaccessible| Status::BAD_ADDRESS)?;
        Ok(u64::from(u32::from_le_bytes(bytes)))
    };
    let mut sections = reserved(count)?;
    for index in 0..count {
        let (start, length) = (number(addresses, index)?, number(lengths, index)?);
        if !length.is_multiple_of(PAGE) {
            return Err(Status::SECTION_SIZE);
        }
        check_range(word, start, length / PAGE)?;
        let pages = find_run(process, memory, Kind::Shared, start, length / PAGE)?;
        sections.push(Section { kind: Kind::Shared, start, pages });
    }
    Ok(sections)
}
