//! The TXT heap: four parts, each behind its size, by which firmware, loader, SINIT and measured environment hand data on
//! (TXT guide, "Intel TXT Heap Memory").

mod bios_data;
mod element;
mod event_log;
mod os_mle_data;
mod os_sinit_data;
mod sinit_mle_data;

pub use bios_data::BiosData;
pub use element::{END_SIZE, Element, Elements};
pub use event_log::{AgileLog, LegacyLog, LegacyLogs};
pub use os_mle_data::{MTRRS_LIMIT, MtrrRange, OsMleData};
pub use os_sinit_data::OsSinitData;
pub use sinit_mle_data::{MemoryKind, MemoryRange, SinitMleData};

use crate::bytes::{part, put, u64_at};
use core::fmt;

/// Bytes of the size in front of each part, which it counts itself.
pub const SIZE_FIELD: usize = 8;

/// A part of the heap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// From the firmware.
    BiosData,
    /// From the loader to the measured environment, in a format of their own.
    OsMleData,
    /// From the loader to SINIT.
    OsSinitData,
    /// From SINIT to the measured environment.
    SinitMleData,
}

/// What is wrong with the heap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeapError {
    /// A part's size is less than its own field, or reaches out of the heap.
    Size {
        /// Which part.
        part: Part,
        /// Its size field.
        size: u64,
    },
    /// A part's version is not known.
    Version {
        /// Which part.
        part: Part,
        /// Its version.
        version: u32,
    },
    /// A part ends before the fields of its version do.
    Short(Part),
    /// An extended element's size is less than its head's, or reaches out of the part.
    Element {
        /// Type of the element.
        kind: u32,
        /// Its size field.
        size: u32,
    },
    /// The extended elements have no end.
    NoEnd(Part),
    /// A table lies outside of its part.
    Table(Part),
    /// There is no room for what is to be written.
    NoRoom {
        /// Bytes that it needs.
        needed: usize,
    },
    /// A log's first or next record lies outside of it.
    Log,
}

impl Part {
    const ALL: [Self; 4] = [Self::BiosData, Self::OsMleData, Self::OsSinitData, Self::SinitMleData];
}

/// The heap's bytes.
#[derive(Clone, Copy)]
pub struct Heap<'a> {
    bytes: &'a [u8],
}

impl<'a> Heap<'a> {
    /// The heap in `bytes`, all of TXT.HEAP.SIZE.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// Offset of `part` in the heap, where its size field stands, and its bytes without that field.
    ///
    /// # Errors
    ///
    /// [`HeapError::Size`] of this part or of one in front of it.
    pub fn part(&self, wanted: Part) -> Result<(usize, &'a [u8]), HeapError> {
        let mut at = 0;
        for part in Part::ALL {
            let (bytes, length) = self.sized(part, at)?;
            if part == wanted {
                return Ok((at, bytes));
            }
            at += length;
        }
        Err(HeapError::Size { part: wanted, size: 0 })
    }

    /// Offset of the first byte behind `part`: where the next one's size field goes.
    ///
    /// # Errors
    ///
    /// As [`Heap::part`].
    pub fn behind(&self, part: Part) -> Result<usize, HeapError> {
        self.part(part).map(|(at, bytes)| at + SIZE_FIELD + bytes.len())
    }

    /// The firmware's part.
    ///
    /// # Errors
    ///
    /// [`HeapError`].
    pub fn bios_data(&self) -> Result<BiosData<'a>, HeapError> {
        BiosData::parse(self.part(Part::BiosData)?.1)
    }

    /// The loader's part for the measured environment.
    ///
    /// # Errors
    ///
    /// [`HeapError`].
    pub fn os_mle_data(&self) -> Result<OsMleData, HeapError> {
        OsMleData::parse(self.part(Part::OsMleData)?.1)
    }

    /// The loader's part for SINIT.
    ///
    /// # Errors
    ///
    /// [`HeapError`].
    pub fn os_sinit_data(&self) -> Result<(OsSinitData, Elements<'a>), HeapError> {
        OsSinitData::parse(self.part(Part::OsSinitData)?.1)
    }

    /// SINIT's part.
    ///
    /// # Errors
    ///
    /// [`HeapError`].
    pub fn sinit_mle_data(&self) -> Result<SinitMleData<'a>, HeapError> {
        SinitMleData::parse(self.part(Part::SinitMleData)?.1)
    }

    fn sized(&self, part_name: Part, at: usize) -> Result<(&'a [u8], usize), HeapError> {
        let size = u64_at(self.bytes, at).ok_or(HeapError::Size { part: part_name, size: 0 })?;
        let wrong = HeapError::Size { part: part_name, size };
        let length = usize::try_from(size).map_err(|_| wrong)?;
        let whole = part(self.bytes, at, length).ok_or(wrong)?;
        Ok((whole.get(SIZE_FIELD..).ok_or(wrong)?, length))
    }
}

impl fmt::Debug for Heap<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Heap").field("size", &self.bytes.len()).finish_non_exhaustive()
    }
}

/// Puts a part of `length` bytes, filled by `fill`, and its size to the start of `room`; gives the bytes of both.
///
/// # Errors
///
/// [`HeapError::NoRoom`], or what `fill` says.
pub fn write_part(
    room: &mut [u8],
    length: usize,
    fill: impl FnOnce(&mut [u8]) -> Result<(), HeapError>,
) -> Result<usize, HeapError> {
    // The next part's size stays at a multiple of its own, as SINIT demands.
    let size = length
        .checked_add(SIZE_FIELD)
        .and_then(|size| size.checked_next_multiple_of(SIZE_FIELD))
        .ok_or(HeapError::NoRoom { needed: usize::MAX })?;
    let room = room.get_mut(..size).ok_or(HeapError::NoRoom { needed: size })?;
    room.fill(0);
    put(room, 0, &(size as u64).to_le_bytes()).ok_or(HeapError::NoRoom { needed: size })?;
    fill(room.get_mut(SIZE_FIELD..).unwrap_or_default())?;
    Ok(size)
}

impl fmt::Display for HeapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Size { part, size } => {
                write!(f, "the TXT heap's {part:?} has the impossible size {size:#x}")
            }
            Self::Version { part, version } => write!(f, "{part:?} of the unknown version {version}"),
            Self::Short(part) => write!(f, "{part:?} ends before its fields"),
            Self::Element { kind, size } => {
                write!(f, "an element of type {kind} with the impossible size {size:#x}")
            }
            Self::NoEnd(part) => write!(f, "the elements of {part:?} have no end"),
            Self::Table(part) => write!(f, "a table of {part:?} lies outside of it"),
            Self::NoRoom { needed } => write!(f, "{needed} bytes do not fit"),
            Self::Log => f.write_str("a record lies outside of the event log"),
        }
    }
}

impl core::error::Error for HeapError {}

#[cfg(test)]
mod tests;
