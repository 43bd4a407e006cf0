//! What the firmware says (TXT guide, "BiosData").

use super::{Elements, HeapError, Part};
use crate::bytes::{u32_at, u64_at};
use crate::capabilities::Capabilities;

/// Versions that have the fields that are read here.
const OLDEST: u32 = 2;
const LATEST: u32 = 6;

/// The part's fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BiosData<'a> {
    /// Version.
    pub version: u32,
    /// Bytes of the SINIT that the firmware brought to its memory; 0 for none.
    pub sinit_size: u32,
    /// Physical address of the platform default's launch control policy.
    pub policy_base: u64,
    /// Its bytes; 0 for none.
    pub policy_size: u64,
    /// Processors, threads included.
    pub processors: u32,
    /// Flags for SINIT, below, and for the measured environment, above, from version 3 on.
    pub flags: u64,
    /// Extended elements, from version 4 on.
    pub elements: Elements<'a>,
}

impl<'a> BiosData<'a> {
    /// Reads the part, without its size field.
    ///
    /// # Errors
    ///
    /// [`HeapError`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, HeapError> {
        const SHORT: HeapError = HeapError::Short(Part::BiosData);
        let version = u32_at(bytes, 0).ok_or(SHORT)?;
        // A later one has the fields of the latest that is known, and more elements.
        if version < OLDEST {
            return Err(HeapError::Version { part: Part::BiosData, version });
        }
        let elements = bytes.get(36..).ok_or(SHORT);
        Ok(Self {
            version,
            sinit_size: u32_at(bytes, 4).ok_or(SHORT)?,
            policy_base: u64_at(bytes, 8).ok_or(SHORT)?,
            policy_size: u64_at(bytes, 16).ok_or(SHORT)?,
            processors: u32_at(bytes, 24).ok_or(SHORT)?,
            flags: if version >= 3 { u64_at(bytes, 28).ok_or(SHORT)? } else { 0 },
            elements: if version >= 4 {
                Elements::parse(elements?, Part::BiosData)?
            } else {
                Elements::default()
            },
        })
    }

    /// Whether this version is one that the guide describes.
    #[must_use]
    pub const fn is_known(&self) -> bool {
        self.version <= LATEST
    }

    /// Whether a client or a server, in words of [`Capabilities`]; none where the firmware does not say, before version 6.
    #[must_use]
    pub const fn kind(&self) -> Option<Capabilities> {
        match (self.flags >> 33) & 3 {
            1 if self.version >= 6 => Some(Capabilities::PLATFORM_CLIENT),
            2 if self.version >= 6 => Some(Capabilities::PLATFORM_SERVER),
            _ => None,
        }
    }
}
