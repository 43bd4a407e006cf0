//! What the loader leaves for the measured environment (TXT guide, "OsMleData": its format is the loader's own).
//!
//! The loader sets memory types for SINIT and turns features off; the environment gets back what there was before. It is
//! the loader's word, hence an attacker's: the environment checks each value before it uses it.

use super::{HeapError, Part};
use crate::bytes::{put, u32_at, u64_at};

/// Version of the format.
const VERSION: u32 = 1;
/// Variable-range MTRRs that are kept at most; processors of today have ten.
pub const MTRRS_LIMIT: usize = 32;
/// Bytes before the MTRRs.
const HEAD: usize = 40;
/// Bytes of an MTRR's base and mask.
const PAIR: usize = 16;

/// A variable-range MTRR.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MtrrRange {
    /// IA32_MTRR_PHYSBASE.
    pub base: u64,
    /// IA32_MTRR_PHYSMASK.
    pub mask: u64,
}

/// The part's fields, all by their full 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OsMleData {
    /// IA32_MISC_ENABLE.
    pub misc_enable: u64,
    /// IA32_MTRR_DEF_TYPE.
    pub mtrr_default: u64,
    /// Physical address of the handoff.
    pub handoff: u64,
    count: usize,
    ranges: [MtrrRange; MTRRS_LIMIT],
}

impl OsMleData {
    /// What is to be left, with all of `ranges`.
    ///
    /// # Errors
    ///
    /// [`HeapError::NoRoom`] where there are more than [`MTRRS_LIMIT`].
    pub fn new(
        misc_enable: u64,
        mtrr_default: u64,
        handoff: u64,
        ranges: &[MtrrRange],
    ) -> Result<Self, HeapError> {
        let mut kept = [MtrrRange::default(); MTRRS_LIMIT];
        let needed = HEAD + ranges.len() * PAIR;
        kept.get_mut(..ranges.len()).ok_or(HeapError::NoRoom { needed })?.copy_from_slice(ranges);
        Ok(Self { misc_enable, mtrr_default, handoff, count: ranges.len(), ranges: kept })
    }

    /// The variable-range MTRRs.
    #[must_use]
    pub fn ranges(&self) -> &[MtrrRange] {
        self.ranges.get(..self.count).unwrap_or_default()
    }

    /// Reads the part, without its size field.
    ///
    /// # Errors
    ///
    /// [`HeapError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, HeapError> {
        const SHORT: HeapError = HeapError::Short(Part::OsMleData);
        let long = |at| u64_at(bytes, at).ok_or(SHORT);
        let version = u32_at(bytes, 0).ok_or(SHORT)?;
        if version != VERSION {
            return Err(HeapError::Version { part: Part::OsMleData, version });
        }
        let count = u32_at(bytes, 4).ok_or(SHORT)? as usize;
        if count > MTRRS_LIMIT {
            return Err(HeapError::Table(Part::OsMleData));
        }
        let mut ranges = [MtrrRange::default(); MTRRS_LIMIT];
        for (index, range) in ranges.iter_mut().take(count).enumerate() {
            let at = HEAD + index * PAIR;
            *range = MtrrRange { base: long(at)?, mask: long(at + 8)? };
        }
        Ok(Self { misc_enable: long(8)?, mtrr_default: long(16)?, handoff: long(24)?, count, ranges })
    }

    /// Writes the part with its size field to the start of `room`; gives the bytes of both.
    ///
    /// # Errors
    ///
    /// [`HeapError::NoRoom`].
    pub fn write(&self, room: &mut [u8]) -> Result<usize, HeapError> {
        let size = HEAD + self.count * PAIR;
        super::write_part(room, size, |bytes| {
            self.put_fields(bytes).ok_or(HeapError::NoRoom { needed: size })
        })
    }

    fn put_fields(&self, bytes: &mut [u8]) -> Option<()> {
        put(bytes, 0, &VERSION.to_le_bytes())?;
        put(bytes, 4, &u32::try_from(self.count).ok()?.to_le_bytes())?;
        for (index, long) in [self.misc_enable, self.mtrr_default, self.handoff].into_iter().enumerate() {
            put(bytes, 8 + 8 * index, &long.to_le_bytes())?;
        }
        for (index, MtrrRange { base, mask }) in self.ranges().iter().enumerate() {
            put(bytes, HEAD + index * PAIR, &base.to_le_bytes())?;
            put(bytes, HEAD + index * PAIR + 8, &mask.to_le_bytes())?;
        }
        Some(())
    }
}
