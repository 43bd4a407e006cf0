//! What a Multiboot boot loader says, copied out into one structure whatever the version.
//!
//! The boot loader's own structures lie anywhere in usable memory. They are copied before anything is
//! written, so nothing has to keep clear of them later.

mod mb1;
mod mb2;

use core::fmt;

use arrayvec::ArrayVec;

use crate::handoff::{COMMAND_LINE_CAPACITY, MEMORY_MAP_CAPACITY, MemoryRange, PhysRange};
use crate::physical::Unreadable;

pub use mb1::MAGIC as MULTIBOOT1_MAGIC;
pub use multiboot2::MAGIC as MULTIBOOT2_MAGIC;

/// Number of modules that a boot loader may bring.
pub const MODULE_CAPACITY: usize = 16;

/// All that is kept of a boot loader's information.
#[derive(Clone, Debug, Default)]
pub struct BootInformation {
    /// The command line as the boot loader gave it, without the terminating zero.
    command_line: ArrayVec<u8, { COMMAND_LINE_CAPACITY - 1 }>,
    /// The firmware's memory map, unchanged.
    memory_map: ArrayVec<MemoryRange, MEMORY_MAP_CAPACITY>,
    /// The modules in the boot loader's order.
    modules: ArrayVec<PhysRange, MODULE_CAPACITY>,
}

/// Why a boot loader's information was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BootInformationError {
    /// EAX at the entry held this, which is neither Multiboot's nor Multiboot 2's.
    NotMultiboot(u32),
    /// The information contradicts itself.
    Malformed,
    /// It points outside the memory that can be read.
    Unreadable,
    /// It has no memory map.
    NoMemoryMap,
    /// The memory map has more records than are kept.
    MemoryMapTooLong,
    /// There are more modules than are kept.
    TooManyModules,
    /// The command line is longer than what is kept, or no ASCII text.
    CommandLine,
}

impl BootInformation {
    /// Returns the command line.
    #[must_use]
    pub fn command_line(&self) -> &str {
        str::from_utf8(&self.command_line).unwrap_or_default()
    }

    /// Returns the firmware's memory map, unchanged.
    #[must_use]
    pub fn memory_map(&self) -> &[MemoryRange] {
        &self.memory_map
    }

    /// Returns the modules in the boot loader's order.
    #[must_use]
    pub fn modules(&self) -> &[PhysRange] {
        &self.modules
    }

    fn set_command_line(&mut self, line: &[u8]) -> Result<(), BootInformationError> {
        self.command_line.clear();
        let fits = line.is_ascii() && self.command_line.try_extend_from_slice(line).is_ok();
        if fits { Ok(()) } else { Err(BootInformationError::CommandLine) }
    }

    fn add_memory(&mut self, range: MemoryRange) -> Result<(), BootInformationError> {
        self.memory_map.try_push(range).map_err(|_| BootInformationError::MemoryMapTooLong)
    }

    fn add_module(&mut self, start: u32, end: u32) -> Result<(), BootInformationError> {
        let length = end.checked_sub(start).ok_or(BootInformationError::Malformed)?;
        let module = PhysRange { base: start.into(), length: length.into() };
        self.modules.try_push(module).map_err(|_| BootInformationError::TooManyModules)
    }
}

impl From<Unreadable> for BootInformationError {
    fn from(_: Unreadable) -> Self {
        Self::Unreadable
    }
}

impl fmt::Display for BootInformationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotMultiboot(magic) => {
                write!(
                    f,
                    "no Multiboot loader started us (EAX={magic:#x}); use GRUB's multiboot or multiboot2"
                )
            }
            Self::Malformed => {
                f.write_str("GRUB's information contradicts itself; use another version of GRUB")
            }
            Self::Unreadable => {
                f.write_str("GRUB's information lies above 4 GiB; use another version of GRUB")
            }
            Self::NoMemoryMap => f.write_str("GRUB gave no memory map; start it by a BIOS that has E820"),
            Self::MemoryMapTooLong => {
                write!(f, "the memory map has more than {MEMORY_MAP_CAPACITY} records; update the firmware")
            }
            Self::TooManyModules => {
                write!(f, "GRUB brought more than {MODULE_CAPACITY} modules; remove module lines")
            }
            Self::CommandLine => {
                let most = COMMAND_LINE_CAPACITY - 1;
                write!(f, "the command line has more than {most} characters, or not only ASCII; shorten it")
            }
        }
    }
}
