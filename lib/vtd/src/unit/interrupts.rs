//! Interrupt remapping, turned on (VT-d, "Interrupt Remapping").

use x86::address::HostPhysAddr;
use x86::paging::PAGE_SIZE;

use super::{Unit, UnitError};
use crate::capability::{Capability, ExtendedCapability};
use crate::command::Global;
use crate::descriptor::Descriptor;
use crate::{Registers, TableMemory, offset};

/// Sizes of the table that there are, as powers of two of entries.
const SIZES: core::ops::RangeInclusive<u8> = 1..=16;
/// EIME: entries name x2APIC IDs of 32 bits (VT-d, "Interrupt Remapping Table Address Register").
const EXTENDED_MODE: u64 = 1 << 11;

impl<R: Registers, M: TableMemory> Unit<R, M> {
    /// Remaps interrupts by `table` of two to the power of `size` entries, which name x2APIC IDs where `is_x2apic`;
    /// those in the old format are blocked. It takes a queue, by which alone entries are forgotten.
    ///
    /// # Errors
    ///
    /// [`UnitError::Unsupported`], [`UnitError::NoQueue`], or that the unit does not answer.
    pub fn remap_interrupts(
        &mut self,
        table: HostPhysAddr,
        size: u8,
        is_x2apic: bool,
    ) -> Result<(), UnitError> {
        if !self.extended.contains(ExtendedCapability::INTERRUPT_REMAPPING) || !SIZES.contains(&size) {
            return Err(UnitError::Unsupported("interrupt remapping"));
        }
        if is_x2apic && !self.extended.contains(ExtendedCapability::EXTENDED_INTERRUPT_MODE) {
            return Err(UnitError::Unsupported("interrupt remapping to x2APIC IDs"));
        }
        if !table.get().is_multiple_of(PAGE_SIZE) {
            return Err(UnitError::Unaligned(PAGE_SIZE));
        }
        if self.queue.is_none() {
            return Err(UnitError::NoQueue);
        }
        self.flush_write_buffer()?;
        let mode = if is_x2apic { EXTENDED_MODE } else { 0 };
        self.registers.write_u64(offset::INTERRUPT_TABLE, table.get() | mode | u64::from(size - 1));
        self.set(Global::SET_INTERRUPT_TABLE)?;
        if !self.capability.contains(Capability::SET_INTERRUPT_TABLE_INVALIDATES) {
            self.submit(Descriptor::interrupt_entries())?;
        }
        self.set(Global::INTERRUPT_REMAPPING)?;
        self.clear(Global::COMPATIBILITY_INTERRUPTS)
    }
}
