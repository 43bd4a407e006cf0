//! The machine's memory map: made sane, and edited so that a range disappears from it.
//!
//! Firmware maps come unsorted, with overlaps and empty records. [`MemoryMap::sanitise`] gives sorted,
//! disjoint ranges; where records overlap the one with the largest type number wins, so usable memory
//! loses to everything and "unusable" wins over everything. Reference: ACPI, "INT 15H, E820H - Query
//! System Address Map".

use core::fmt;

use arrayvec::ArrayVec;

use crate::handoff::{MEMORY_MAP_CAPACITY, MemoryRange, PhysRange, RESERVED, USABLE};

/// First address that no processor can put on the bus (SDM, "Paging": 52 bits at most).
const PHYSICAL_LIMIT: u64 = 1 << 52;

/// A sorted memory map of disjoint, non-empty ranges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryMap {
    ranges: ArrayVec<MemoryRange, MEMORY_MAP_CAPACITY>,
}

/// Why a memory map was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryMapError {
    /// No record, or none of usable memory.
    NoMemory,
    /// More ranges than a [`MemoryMap`] holds.
    TooMany,
    /// A record ends beyond what a processor can address, or wraps.
    BeyondPhysical(MemoryRange),
}

impl MemoryMap {
    /// Sorts `records`, drops empty ones, resolves overlaps and joins neighbours that are alike.
    ///
    /// # Errors
    ///
    /// [`MemoryMapError`] where the records cannot be the truth, or are more than fit.
    pub fn sanitise(records: &[MemoryRange]) -> Result<Self, MemoryMapError> {
        if records.len() > MEMORY_MAP_CAPACITY {
            return Err(MemoryMapError::TooMany);
        }
        let mut map = Self { ranges: ArrayVec::new() };
        let mut edges = ArrayVec::<u64, { 2 * MEMORY_MAP_CAPACITY }>::new();
        for record in records.iter().filter(|record| record.length != 0) {
            let end = end(record).filter(|&end| end <= PHYSICAL_LIMIT);
            edges.push(record.base);
            edges.push(end.ok_or(MemoryMapError::BeyondPhysical(*record))?);
        }
        edges.sort_unstable();
        for pair in edges.windows(2) {
            let (base, length) = (pair[0], pair[1] - pair[0]);
            let covering = records.iter().filter(|r| r.base <= base && base - r.base < r.length);
            let Some(strictest) = covering.max_by_key(|record| record.kind) else { continue };
            map.append(MemoryRange { base, length, ..*strictest })?;
        }
        if map.usable().next().is_none() { Err(MemoryMapError::NoMemory) } else { Ok(map) }
    }

    /// Turns the usable memory inside `hole` into reserved memory.
    ///
    /// # Errors
    ///
    /// [`MemoryMapError::TooMany`] where the split ranges do not fit; the map is unchanged then.
    pub fn hide(&mut self, hole: PhysRange) -> Result<(), MemoryMapError> {
        let hole_end = hole.base.saturating_add(hole.length);
        let mut edited = Self { ranges: ArrayVec::new() };
        for range in &self.ranges {
            let range_end = range.base + range.length;
            let start = hole.base.clamp(range.base, range_end);
            let end = hole_end.clamp(start, range_end);
            if range.kind != USABLE || start == end {
                edited.append(*range)?;
                continue;
            }
            edited.append(MemoryRange { length: start - range.base, ..*range })?;
            edited.append(MemoryRange { base: start, length: end - start, kind: RESERVED, ..*range })?;
            edited.append(MemoryRange { base: end, length: range_end - end, ..*range })?;
        }
        *self = edited;
        Ok(())
    }

    /// Returns all ranges, sorted by base.
    #[must_use]
    pub fn ranges(&self) -> &[MemoryRange] {
        &self.ranges
    }

    /// Returns the usable ranges, sorted by base.
    pub fn usable(&self) -> impl DoubleEndedIterator<Item = PhysRange> + '_ {
        let usable = self.ranges.iter().filter(|range| range.kind == USABLE);
        usable.map(|range| PhysRange { base: range.base, length: range.length })
    }

    /// Adds a range behind all others, joined to the last where the two are alike.
    fn append(&mut self, range: MemoryRange) -> Result<(), MemoryMapError> {
        if range.length == 0 {
            return Ok(());
        }
        if let Some(last) = self.ranges.last_mut()
            && last.base + last.length == range.base
            && (last.kind, last.attributes) == (range.kind, range.attributes)
        {
            last.length += range.length;
            return Ok(());
        }
        self.ranges.try_push(range).map_err(|_| MemoryMapError::TooMany)
    }
}

fn end(range: &MemoryRange) -> Option<u64> {
    range.base.checked_add(range.length)
}

impl fmt::Display for MemoryMapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoMemory => f.write_str("the firmware's memory map names no usable memory"),
            Self::TooMany => {
                write!(f, "the firmware's memory map needs more than {MEMORY_MAP_CAPACITY} ranges")
            }
            Self::BeyondPhysical(range) => {
                let (base, length) = (range.base, range.length);
                write!(
                    f,
                    "the firmware's memory map has an impossible record base={base:#x} length={length:#x}"
                )
            }
        }?;
        f.write_str("; update the firmware, and load no program before GRUB that edits the map")
    }
}

#[cfg(test)]
#[path = "e820_tests.rs"]
mod tests;
