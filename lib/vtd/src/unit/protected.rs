//! Memory that no device reaches while the unit does not translate (VT-d, "Protected Memory Enable Register").

use super::{Unit, UnitError, Wait};
use crate::capability::Capability;
use crate::command::ProtectedEnable;
use crate::{Registers, TableMemory, offset};

/// First address of high memory.
const HIGH: u64 = 1 << 32;

/// A region: its first address, and the first behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProtectedRange {
    /// First address.
    pub start: u64,
    /// First address behind it.
    pub end: u64,
}

impl<R: Registers, M: TableMemory> Unit<R, M> {
    /// Keeps devices from `low`, which ends at or below 4 GiB, and from nothing in high memory. Nothing is protected
    /// while it changes.
    ///
    /// # Errors
    ///
    /// [`UnitError::Unsupported`] where the unit has no such region; [`UnitError::Unaligned`] with the boundary that it
    /// wants; [`UnitError::Silent`].
    pub fn protect_low_memory(&mut self, low: ProtectedRange) -> Result<(), UnitError> {
        if !self.capability.contains(Capability::PROTECTED_LOW_MEMORY) || low.end > HIGH {
            return Err(UnitError::Unsupported("protected low memory"));
        }
        self.release_protected_memory()?;
        let granule = self.low_granule();
        if low.start >= low.end || !(low.start | low.end).is_multiple_of(granule) {
            return Err(UnitError::Unaligned(granule));
        }
        self.write_low(low.start, low.end - granule);
        if self.capability.contains(Capability::PROTECTED_HIGH_MEMORY) {
            // A limit below the base is none.
            self.registers.write_u64(offset::PROTECTED_HIGH_BASE, u64::MAX);
            self.registers.write_u64(offset::PROTECTED_HIGH_LIMIT, 0);
        }
        self.registers.write_u32(offset::PROTECTED_ENABLE, ProtectedEnable::ENABLE.bits());
        self.wait(Wait::ProtectedMemory, || self.is_protecting())
    }

    /// Protects nothing by regions any more: behind it tables alone do.
    ///
    /// # Errors
    ///
    /// [`UnitError::Silent`].
    pub fn release_protected_memory(&mut self) -> Result<(), UnitError> {
        let regions = Capability::PROTECTED_LOW_MEMORY.union(Capability::PROTECTED_HIGH_MEMORY);
        if !self.capability.intersects(regions) {
            return Ok(());
        }
        self.registers.write_u32(offset::PROTECTED_ENABLE, 0);
        self.wait(Wait::ProtectedMemory, || !self.is_protecting())
    }

    /// Whether regions are protected.
    #[must_use]
    pub fn is_protecting(&self) -> bool {
        let enable = ProtectedEnable::from_bits_retain(self.registers.read_u32(offset::PROTECTED_ENABLE));
        enable.contains(ProtectedEnable::STATUS)
    }

    /// The boundary of regions: the lowest bit of the limit that can be set.
    fn low_granule(&self) -> u64 {
        self.registers.write_u32(offset::PROTECTED_LOW_LIMIT, u32::MAX);
        let bits = self.registers.read_u32(offset::PROTECTED_LOW_LIMIT);
        1 << u64::from(bits).trailing_zeros().min(32)
    }

    #[expect(clippy::cast_possible_truncation, reason = "both are below 4 GiB")]
    fn write_low(&self, base: u64, limit: u64) {
        self.registers.write_u32(offset::PROTECTED_LOW_BASE, base as u32);
        self.registers.write_u32(offset::PROTECTED_LOW_LIMIT, limit as u32);
    }
}
