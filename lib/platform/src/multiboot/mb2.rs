//! Multiboot 2, read by the `multiboot2` crate.

use super::{BootInformation, BootInformationError};
use crate::handoff::MemoryRange;

impl BootInformation {
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
