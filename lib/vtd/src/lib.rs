//! DMA-remapping hardware of Intel's: its registers and tables by name, a unit that is driven, and the tables that all
//! devices go by.
//!
//! Nothing here knows where a unit or its memory is: [`unit::Unit`] drives registers and writes memory by the traits
//! [`Registers`] and [`TableMemory`], so every sequence runs in a host test against a simulated unit. That one walks
//! tables by its own code, keeps stale translations until they are invalidated, and sees of memory what was written
//! back alone. References name sections of the Intel Virtualization Technology for
//! Directed I/O Architecture Specification ("VT-d") by title.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
#![cfg_attr(
    test,
    expect(
        clippy::unwrap_used,
        clippy::cast_possible_truncation,
        reason = "tests may stop, and know their sizes"
    )
)]

pub mod capability;
pub mod command;
pub mod descriptor;
pub mod device_tables;
pub mod entry;
pub mod fault;
pub mod frames;
pub mod offset;
pub mod shape;
#[cfg(test)]
mod sim;
pub mod unit;

use core::fmt;

use hw::PhysMemory;
use x86::address::HostPhysAddr;

/// The registers of one unit, by their offsets (VT-d, "Register Descriptions").
pub trait Registers {
    /// Reads a 32-bit register, or half of a longer one, by one access.
    fn read_u32(&self, offset: u16) -> u32;
    /// Writes a 32-bit register, or half of a longer one, by one access.
    fn write_u32(&self, offset: u16, value: u32);
    /// Reads a 64-bit register by one access.
    fn read_u64(&self, offset: u16) -> u64;
    /// Writes a 64-bit register by one access.
    fn write_u64(&self, offset: u16, value: u64);
}

/// Memory that holds what units read.
pub trait TableMemory: PhysMemory {
    /// Writes the cache lines that hold these bytes back, and returns when they are in memory: CLFLUSH of each, then a
    /// fence.
    fn write_back(&self, address: HostPhysAddr, bytes: u64);
}

/// A device by its PCI requester ID: bus in bits 15 to 8, device in 7 to 3, function in 2 to 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceId(pub u16);

/// A number that ties devices to the translations that are kept for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DomainId(pub u16);

impl SourceId {
    /// PCI bus number.
    #[must_use]
    pub const fn bus(self) -> u8 {
        self.0.to_be_bytes()[0]
    }

    /// Device and function number together, as tables are indexed by it.
    #[must_use]
    pub const fn device_function(self) -> u8 {
        self.0.to_be_bytes()[1]
    }
}

impl fmt::Display for SourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let below = self.device_function();
        write!(f, "{:02x}:{:02x}.{}", self.bus(), below >> 3, below & 7)
    }
}
