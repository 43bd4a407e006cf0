//! What can be wrong with the table, each by name.

use core::fmt;

use crate::physical::Unreadable;

/// Something in the table that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DmarError {
    /// Where in the table, in bytes from its start.
    pub offset: u64,
    /// The type of the structure, where there is one.
    pub kind: Option<u16>,
    /// What it is.
    pub fault: Fault,
}

/// What cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The table ends before its first structure could begin.
    Short,
    /// It lies outside of what can be read.
    Unreadable,
    /// So many bits of an address.
    HostAddressWidth(u16),
    /// So many bytes behind the last structure, too few for another.
    Rest(u64),
    /// The length of a structure: less than its kind has, or beyond the table's end.
    Length(u16),
    /// Where a unit's registers are: at 0, not at a page, or beyond physical addresses.
    RegisterBase(u64),
    /// Reserved memory that ends before it begins, or beyond physical addresses.
    Region(u64, u64),
    /// The length of a device scope: less than one has, or beyond its structure's end.
    ScopeLength(u8),
    /// The path of a device scope: none, half a step, or a device or function that PCI does not have.
    ScopePath,
    /// A name that does not end, or is no name.
    Name,
}

impl From<Unreadable> for Fault {
    fn from(_: Unreadable) -> Self {
        Self::Unreadable
    }
}

impl fmt::Display for DmarError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let offset = self.offset;
        match self.kind {
            Some(kind) => write!(f, "{} at offset {offset:#x}: {}", Kind(kind), self.fault),
            None => write!(f, "offset {offset:#x}: {}", self.fault),
        }
    }
}

/// The type of a structure, as the specification names it.
struct Kind(u16);

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [&str; 7] = ["DRHD", "RMRR", "ATSR", "RHSA", "ANDD", "SATC", "SIDP"];
        match NAMES.get(usize::from(self.0)) {
            Some(name) => f.write_str(name),
            None => write!(f, "structure of type {}", self.0),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short => f.write_str("the table ends before its first structure"),
            Self::Unreadable => f.write_str("it lies outside of what can be read"),
            Self::HostAddressWidth(bits) => write!(f, "no address has {bits} bits"),
            Self::Rest(bytes) => write!(f, "{bytes} bytes are no structure"),
            Self::Length(bytes) => write!(f, "{bytes} bytes cannot be its length"),
            Self::RegisterBase(base) => write!(f, "no registers can be at {base:#x}"),
            Self::Region(base, limit) => write!(f, "no memory goes from {base:#x} to {limit:#x}"),
            Self::ScopeLength(bytes) => write!(f, "{bytes} bytes cannot be a device scope's length"),
            Self::ScopePath => f.write_str("the path of a device scope leads to no device"),
            Self::Name => f.write_str("the name of an ACPI object is none"),
        }
    }
}
