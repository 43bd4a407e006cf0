//! The few ACPI tables that a hypervisor reads before its guest runs.
//!
//! Decision: own parsers of some sixty lines a table, over [`ReadPhysical`]. The `acpi` crate wants a
//! handler with unsafe mappings and three dozen methods for its AML interpreter; here nothing is mapped,
//! every byte comes by a checked copy, and a test gives the bytes.

mod fadt;
mod madt;
mod rsdp;
mod sdt;
mod sleep;

pub use fadt::power_ports;
pub use madt::enabled_processors;
pub use rsdp::Rsdp;
pub use sdt::Table;

use crate::physical::{ReadPhysical, Unreadable};

/// Why ACPI tables cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcpiError {
    /// The table, or the root pointer, is not there.
    Absent,
    /// A table's length is impossible, or what lies there is another table.
    Malformed,
    /// A table lies outside the memory that can be read.
    Unreadable,
}

impl From<Unreadable> for AcpiError {
    fn from(_: Unreadable) -> Self {
        Self::Unreadable
    }
}

/// Finds the table of this signature by the machine's root pointer; of wrong checksums on the way it warns.
///
/// # Errors
///
/// [`AcpiError`] where the table is absent or its length impossible.
pub fn find(memory: &impl ReadPhysical, rsdp: &Rsdp, signature: &[u8; 4]) -> Result<Table, AcpiError> {
    let root = rsdp.root(memory)?;
    root.table.warn_of_sum();
    let table = root.find(memory, signature)?;
    table.warn_of_sum();
    Ok(table)
}

/// Finds the tables of this signature by each of the root tables: the same twice, or those of firmware that lets them
/// differ.
///
/// # Errors
///
/// As [`find`].
pub fn find_both(
    memory: &impl ReadPhysical,
    rsdp: &Rsdp,
    signature: &[u8; 4],
) -> Result<(Table, Option<Table>), AcpiError> {
    let by_roots = rsdp.roots(memory).map(|root| root.and_then(|root| root.find(memory, signature)).ok());
    let first = find(memory, rsdp, signature);
    let first = first.or_else(|error| by_roots.into_iter().flatten().next().ok_or(error))?;
    let other = by_roots.into_iter().flatten().find(|table| table.address != first.address);
    if let Some(other) = other {
        other.warn_of_sum();
    }
    Ok((first, other))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::madt::tests::put_madt;
    use super::rsdp::tests::put_rsdp;
    use super::sdt::tests::put_table;
    use crate::physical::TestMemory;

    /// A machine with ACPI whose only table is a MADT with these entries.
    pub(crate) fn machine_with_madt(entries: &[&[u8]]) -> TestMemory {
        let mut memory = TestMemory::new();
        put_rsdp(&mut memory, 0xe_0000, 0, 0x2000);
        put_table(&mut memory, 0x2000, b"XSDT", &0x4000_u64.to_le_bytes());
        put_madt(&mut memory, entries);
        memory
    }
}
