//! What the loader wants of SINIT (TXT guide, "OsSinitData").

use super::{Element, Elements, HeapError, Part, element};
use crate::bytes::{put, u32_at, u64_at};
use crate::capabilities::Capabilities;

/// Versions that can be read and written.
const VERSIONS: core::ops::RangeInclusive<u32> = 4..=8;
/// First version with a pointer to ACPI's tables.
const WITH_RSDP: u32 = 5;
/// First version with extended elements.
const WITH_ELEMENTS: u32 = 6;
/// Bytes of the fields of each.
const FIELDS_OF_FIRST: usize = 84;
const FIELDS: usize = 92;

/// The part's fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OsSinitData {
    /// Version, 4 to 8.
    pub version: u32,
    /// With a TPM 2.0, bit 0: banks are extended by digests that SINIT computes, not by the TPM's own commands.
    pub flags: u32,
    /// Physical address of the MLE's page tables.
    pub mle_pages: u64,
    /// Bytes of the MLE.
    pub mle_size: u64,
    /// Offset of the MLE's header in it.
    pub mle_header: u64,
    /// Physical address and bytes of the region below 4 GiB that no device may reach.
    pub low_protected: (u64, u64),
    /// The same above 4 GiB.
    pub high_protected: (u64, u64),
    /// Physical address and bytes of the owner's launch control policy.
    pub policy: (u64, u64),
    /// What is wanted: one way to wake the other processors, a mapping of PCRs.
    pub capabilities: Capabilities,
    /// Physical address of ACPI's root pointer, from version 5 on; 0 where SINIT finds it itself.
    pub rsdp: u64,
}

impl OsSinitData {
    /// Reads the part, without its size field.
    ///
    /// # Errors
    ///
    /// [`HeapError`].
    pub fn parse(bytes: &[u8]) -> Result<(Self, Elements<'_>), HeapError> {
        const SHORT: HeapError = HeapError::Short(Part::OsSinitData);
        let word = |at| u32_at(bytes, at).ok_or(SHORT);
        let long = |at| u64_at(bytes, at).ok_or(SHORT);
        let region = |at| Ok((long(at)?, long(at + 8)?));
        let version = word(0)?;
        if !VERSIONS.contains(&version) {
            return Err(HeapError::Version { part: Part::OsSinitData, version });
        }
        let data = Self {
            version,
            flags: word(4)?,
            mle_pages: long(8)?,
            mle_size: long(16)?,
            mle_header: long(24)?,
            low_protected: region(32)?,
            high_protected: region(48)?,
            policy: region(64)?,
            capabilities: Capabilities::from_bits_retain(word(80)?),
            rsdp: if version >= WITH_RSDP { long(84)? } else { 0 },
        };
        let elements = if version >= WITH_ELEMENTS {
            Elements::parse(bytes.get(FIELDS..).ok_or(SHORT)?, Part::OsSinitData)?
        } else {
            Elements::default()
        };
        Ok((data, elements))
    }

    /// Bytes of the part with `elements`, without its size field.
    ///
    /// # Errors
    ///
    /// [`HeapError::Version`] where the version is not known, or too old for a root pointer or elements that are there.
    pub fn size(&self, elements: &[Element<'_>]) -> Result<usize, HeapError> {
        let version = self.version;
        let lost =
            (version < WITH_RSDP && self.rsdp != 0) || (version < WITH_ELEMENTS && !elements.is_empty());
        if lost || !VERSIONS.contains(&version) {
            return Err(HeapError::Version { part: Part::OsSinitData, version });
        }
        Ok(match version {
            ..WITH_RSDP => FIELDS_OF_FIRST,
            WITH_RSDP => FIELDS,
            WITH_ELEMENTS.. => FIELDS + element::size_of(elements),
        })
    }

    /// Writes the part with its size field to the start of `room`; gives the bytes of both.
    ///
    /// # Errors
    ///
    /// As [`OsSinitData::size`], and [`HeapError::NoRoom`].
    pub fn write(&self, elements: &[Element<'_>], room: &mut [u8]) -> Result<usize, HeapError> {
        let size = self.size(elements)?;
        super::write_part(room, size, |bytes| {
            self.put_fields(bytes).ok_or(HeapError::NoRoom { needed: size })?;
            match bytes.get_mut(FIELDS..) {
                Some(rest) if self.version >= WITH_ELEMENTS => element::write(elements, rest),
                _ => Ok(()),
            }
        })
    }

    fn put_fields(&self, bytes: &mut [u8]) -> Option<()> {
        put(bytes, 0, &self.version.to_le_bytes())?;
        put(bytes, 4, &self.flags.to_le_bytes())?;
        let regions = [self.low_protected, self.high_protected, self.policy];
        let longs = [self.mle_pages, self.mle_size, self.mle_header];
        let regions = regions.into_iter().flat_map(|(base, size)| [base, size]);
        for (index, long) in longs.into_iter().chain(regions).enumerate() {
            put(bytes, 8 + 8 * index, &long.to_le_bytes())?;
        }
        put(bytes, 80, &self.capabilities.bits().to_le_bytes())?;
        if self.version >= WITH_RSDP { put(bytes, 84, &self.rsdp.to_le_bytes()) } else { Some(()) }
    }
}
