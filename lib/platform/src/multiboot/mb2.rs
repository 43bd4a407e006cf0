//! Multiboot 2, read by the `multiboot2` crate.

use super::{BootInformation, BootInformationError};
use crate::handoff::MemoryRange;
use crate::physical::ReadPhysical;

impl BootInformation {
    /// Returns whether all of the information that begins at `address` lies where `memory` can be read, as its own
    /// first word has its length (Multiboot 2, "Basic tags structure").
    #[must_use]
    pub fn is_multiboot2_readable(memory: &impl ReadPhysical, address: u32) -> bool {
        let start = u64::from(address);
        let last = memory.read_u32(start).ok().and_then(|length| (start + u64::from(length)).checked_sub(1));
        last.is_some_and(|last| last >= start && memory.read_array::<1>(last).is_ok())
    }

    /// Copies Multiboot 2 information.
    ///
    /// # Errors
    ///
    /// [`BootInformationError`] where it is incomplete, contradicts itself or does not fit.
    pub fn from_multiboot2(info: &multiboot2::BootInformation<'_>) -> Result<Self, BootInformationError> {
        let mut this = Self::default();
        if let Some(tag) = info.command_line_tag() {
            let line = tag.cmdline().map_err(|_| BootInformationError::CommandLine)?;
            this.set_command_line(line.as_bytes())?;
        }
        for module in info.module_tags() {
            this.add_module(module.start_address(), module.end_address())?;
        }
        for area in info.memory_map_tag().ok_or(BootInformationError::NoMemoryMap)?.memory_areas() {
            this.add_memory(MemoryRange {
                base: area.start_address(),
                length: area.size(),
                kind: area.typ().val(),
                attributes: 1,
            })?;
        }
        Ok(this)
    }
}

#[cfg(test)]
mod tests {
    use super::BootInformation;
    use crate::physical::TestMemory;

    #[test]
    fn information_that_ends_beyond_what_can_be_read_is_told() {
        let is_readable = |address: u32, length: u32| {
            let mut memory = TestMemory::new();
            memory.put(address as usize, &length.to_le_bytes());
            BootInformation::is_multiboot2_readable(&memory, address)
        };
        assert!(is_readable(0x8000, 0x400) && is_readable(0xf_fff8, 8));
        assert!(!is_readable(0xf_fff8, 9) && !is_readable(0x8000, u32::MAX) && !is_readable(0x8000, 0));
        assert!(!BootInformation::is_multiboot2_readable(&TestMemory::new(), 0xffff_fff8));
    }
}
