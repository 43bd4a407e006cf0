//! What a module is for: lists of chipsets, processors and TPMs (TXT guide, "Chipset ID List", "Processor ID List", "TPM
//! Information List").

use super::AcmError;
use crate::bytes::{array, part, u16_at, u32_at, u64_at};
use crate::status::ChipsetIdentity;
use bitflags::bitflags;
use core::marker::PhantomData;

/// Entries of one size behind their count.
#[derive(Clone, Copy, Debug)]
pub struct List<'a, T> {
    entries: &'a [u8],
    kind: PhantomData<T>,
}

/// An entry of a list.
pub trait Entry: Sized {
    /// Its bytes.
    const SIZE: usize;

    /// Reads it; `None` where there are too few bytes.
    fn read(bytes: &[u8]) -> Option<Self>;
}

/// A chipset that a module is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chipset {
    /// Bit 0: the revision is a mask.
    pub flags: u32,
    /// PCI vendor.
    pub vendor: u16,
    /// PCI device.
    pub device: u16,
    /// Revision, or mask of revisions.
    pub revision: u16,
    /// Mask of the device, in lists with masks.
    pub device_mask: u16,
    /// Extended identification.
    pub extended: u32,
}

/// Processors that a module is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessorMatch {
    /// Family, model and stepping, as in EAX of CPUID leaf 1.
    pub signature: u32,
    /// Which bits of that count.
    pub signature_mask: u32,
    /// IA32_PLATFORM_ID.
    pub platform: u64,
    /// Which bits of that count.
    pub platform_mask: u64,
}

/// TPMs that a module can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tpm<'a> {
    /// Which.
    pub capabilities: TpmCapabilities,
    algorithms: &'a [u8],
}

/// Kinds and uses of TPMs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TpmCapabilities(u32);

bitflags! {
    /// Families of TPMs.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Family: u8 {
        /// A chip, version 1.2.
        const DISCRETE_1_2 = 1 << 0;
        /// A chip, version 2.0.
        const DISCRETE_2_0 = 1 << 1;
        /// The platform's firmware, version 2.0.
        const FIRMWARE_2_0 = 1 << 3;
        /// What is reserved.
        const _ = !0;
    }
}

impl<'a, T: Entry + 'a> List<'a, T> {
    /// Reads a count and that many entries.
    pub(super) fn parse(bytes: &'a [u8], name: &'static str) -> Result<Self, AcmError> {
        let count = u32_at(bytes, 0).ok_or(AcmError::List(name))?;
        let length = (count as usize).checked_mul(T::SIZE).ok_or(AcmError::List(name))?;
        let entries = part(bytes, 4, length).ok_or(AcmError::List(name))?;
        Ok(Self { entries, kind: PhantomData })
    }

    /// How many entries there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.entries.len() / T::SIZE
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The entries in their order.
    pub fn iter(&self) -> impl Iterator<Item = T> + 'a {
        self.entries.chunks_exact(T::SIZE).filter_map(T::read)
    }
}

impl<T> Default for List<'_, T> {
    fn default() -> Self {
        Self { entries: &[], kind: PhantomData }
    }
}

impl Entry for Chipset {
    const SIZE: usize = 16;

    fn read(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            flags: u32_at(bytes, 0)?,
            vendor: u16_at(bytes, 4)?,
            device: u16_at(bytes, 6)?,
            revision: u16_at(bytes, 8)?,
            device_mask: u16_at(bytes, 10)?,
            extended: u32_at(bytes, 12)?,
        })
    }
}

impl Chipset {
    const REVISION_IS_MASK: u32 = 1 << 0;

    /// Whether this entry of a list without masks is the chipset.
    #[must_use]
    pub const fn is(&self, chipset: ChipsetIdentity) -> bool {
        let is_revision = if self.flags & Self::REVISION_IS_MASK == 0 {
            self.revision == chipset.revision
        } else {
            self.revision & chipset.revision != 0
        };
        self.vendor == chipset.vendor && self.device == chipset.device && is_revision
    }

    /// Whether this entry of a list with masks takes in the chipset.
    #[must_use]
    pub const fn holds(&self, chipset: ChipsetIdentity) -> bool {
        self.vendor == chipset.vendor && self.device == chipset.device & self.device_mask
    }
}

impl Entry for ProcessorMatch {
    const SIZE: usize = 24;

    fn read(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            signature: u32_at(bytes, 0)?,
            signature_mask: u32_at(bytes, 4)?,
            platform: u64_at(bytes, 8)?,
            platform_mask: u64_at(bytes, 16)?,
        })
    }
}

impl ProcessorMatch {
    /// Whether this entry takes in the processor of that signature and IA32_PLATFORM_ID.
    #[must_use]
    pub const fn holds(&self, signature: u32, platform: u64) -> bool {
        self.signature == signature & self.signature_mask && self.platform == platform & self.platform_mask
    }
}

impl<'a> Tpm<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, AcmError> {
        let [capabilities, count] = [u32_at(bytes, 0), u16_at(bytes, 4).map(u32::from)];
        let (Some(capabilities), Some(count)) = (capabilities, count) else {
            return Err(AcmError::List("TPMs"));
        };
        let algorithms = part(bytes, 6, count as usize * 2).ok_or(AcmError::List("TPMs"))?;
        Ok(Self { capabilities: TpmCapabilities(capabilities), algorithms })
    }

    /// Algorithms that the module knows, by the TCG's numbers.
    pub fn algorithms(&self) -> impl Iterator<Item = u16> + 'a {
        self.algorithms.chunks_exact(2).filter_map(|bytes| array(bytes, 0).map(u16::from_le_bytes))
    }
}

impl TpmCapabilities {
    /// How banks that the module has no digest for are extended: bit 0 by the TPM's own commands, bit 1 by digests that the
    /// module computes.
    #[must_use]
    pub const fn extend_policy(self) -> u8 {
        self.0.to_le_bytes()[0] & 3
    }

    /// Families of TPMs that the module takes.
    #[must_use]
    pub const fn families(self) -> Family {
        Family::from_bits_retain((self.0.to_le_bytes()[0] >> 2) & 0xf)
    }

    /// Which of the two sets of NV indices the module uses.
    #[must_use]
    pub const fn nv_index_set(self) -> u8 {
        (self.0.to_le_bytes()[0] >> 6) & 1
    }
}
