//! What SINIT found and did (TXT guide, "SinitMleData").

use super::{Elements, HeapError, Part, SIZE_FIELD};
use crate::bytes::{array, part, u32_at, u64_at};

/// Oldest version that is read; a later one than the guide's has its fields and more elements.
const OLDEST: u32 = 6;
/// First version with the status of the processor's own measurement.
const WITH_PROCESSOR_STATUS: u32 = 8;
/// First version with extended elements.
const WITH_ELEMENTS: u32 = 9;
/// Bytes of a memory range's record.
const RANGE: usize = 24;

/// The part's fields. Digests are of a TPM 1.2's launch; with a TPM 2.0 the event log has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SinitMleData<'a> {
    /// Version.
    pub version: u32,
    /// Which module of the firmware's ran.
    pub bios_module: [u8; 20],
    /// Flags of SENTER, EDX.
    pub senter_flags: u32,
    /// Whether the SMI transfer monitor's memory is valid.
    pub mseg_valid: u64,
    /// SHA-1 of SINIT.
    pub sinit_hash: [u8; 20],
    /// SHA-1 of the MLE.
    pub mle_hash: [u8; 20],
    /// SHA-1 of the SMI transfer monitor.
    pub stm_hash: [u8; 20],
    /// SHA-1 of the launch control policy.
    pub policy_hash: [u8; 20],
    /// What the policy allows.
    pub policy_control: u32,
    /// Physical address that the other processors watch.
    pub wake_address: u32,
    /// Status of the processor's own measurement, from version 8 on.
    pub processor_status: u32,
    /// Extended elements, from version 9 on.
    pub elements: Elements<'a>,
    ranges: &'a [u8],
    dmar: &'a [u8],
}

/// A range of memory as SINIT found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryRange {
    /// Physical address.
    pub base: u64,
    /// Bytes.
    pub length: u64,
    /// What it is.
    pub kind: MemoryKind,
}

/// What a range of memory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryKind {
    /// Memory that the measured environment may use.
    Good,
    /// System-management memory that overlays other.
    SmmOverlay,
    /// System-management memory that does not.
    SmmNonOverlay,
    /// PCI Express's configuration space.
    PcieConfiguration,
    /// Protected memory.
    Protected,
    /// None that this crate knows.
    Other(u8),
}

impl<'a> SinitMleData<'a> {
    /// Reads the part, without its size field.
    ///
    /// # Errors
    ///
    /// [`HeapError`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, HeapError> {
        const SHORT: HeapError = HeapError::Short(Part::SinitMleData);
        let word = |at| u32_at(bytes, at).ok_or(SHORT);
        let digest = |at| array(bytes, at).ok_or(SHORT);
        let version = word(0)?;
        if version < OLDEST {
            return Err(HeapError::Version { part: Part::SinitMleData, version });
        }
        let range_bytes = (word(128)? as usize).checked_mul(RANGE);
        let range_bytes = range_bytes.ok_or(HeapError::Table(Part::SinitMleData))?;
        Ok(Self {
            version,
            bios_module: digest(4)?,
            senter_flags: word(24)?,
            mseg_valid: u64_at(bytes, 28).ok_or(SHORT)?,
            sinit_hash: digest(36)?,
            mle_hash: digest(56)?,
            stm_hash: digest(76)?,
            policy_hash: digest(96)?,
            policy_control: word(116)?,
            wake_address: word(120)?,
            processor_status: if version >= WITH_PROCESSOR_STATUS { word(144)? } else { 0 },
            elements: if version >= WITH_ELEMENTS {
                Elements::parse(bytes.get(148..).ok_or(SHORT)?, Part::SinitMleData)?
            } else {
                Elements::default()
            },
            ranges: table(bytes, word(132)?, range_bytes)?,
            dmar: table(bytes, word(140)?, word(136)? as usize)?,
        })
    }

    /// Ranges of memory, in their order.
    pub fn memory(&self) -> impl Iterator<Item = MemoryRange> + 'a {
        self.ranges.chunks_exact(RANGE).filter_map(|bytes| {
            let [kind] = array(bytes, 16)?;
            Some(MemoryRange {
                base: u64_at(bytes, 0)?,
                length: u64_at(bytes, 8)?,
                kind: MemoryKind::of(kind),
            })
        })
    }

    /// SINIT's copy of the ACPI table of DMA remapping units.
    #[must_use]
    pub const fn dmar(&self) -> &'a [u8] {
        self.dmar
    }

    /// Whether all of `length` bytes at `base` are in one range of good memory.
    #[must_use]
    pub fn is_good(&self, base: u64, length: u64) -> bool {
        let Some(end) = base.checked_add(length) else { return false };
        self.memory().any(|range| {
            let is_inside =
                range.base <= base && range.base.checked_add(range.length).is_some_and(|top| end <= top);
            range.kind == MemoryKind::Good && is_inside
        })
    }
}

/// The table of `length` bytes whose offset counts from the part's size field; an empty one may be anywhere.
fn table(bytes: &[u8], offset: u32, length: usize) -> Result<&[u8], HeapError> {
    if length == 0 {
        return Ok(&[]);
    }
    let at = (offset as usize).checked_sub(SIZE_FIELD);
    at.and_then(|at| part(bytes, at, length)).ok_or(HeapError::Table(Part::SinitMleData))
}

impl MemoryKind {
    const fn of(kind: u8) -> Self {
        match kind {
            0 => Self::Good,
            1 => Self::SmmOverlay,
            2 => Self::SmmNonOverlay,
            3 => Self::PcieConfiguration,
            4 => Self::Protected,
            other => Self::Other(other),
        }
    }
}
