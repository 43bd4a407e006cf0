//! The few ACPI tables that a hypervisor reads before its guest runs.
//!
//! Decision: own parsers of some sixty lines a table, over [`ReadPhysical`]. The `acpi` crate wants a
//! handler with unsafe mappings and three dozen methods for its AML interpreter; here nothing is mapped,
//! every byte comes by a checked copy, and a test gives the bytes.

pub mod dmar;
mod fadt;
mod fadts;
mod madt;
mod mcfg;
mod removal;
mod rsdp;
mod sdt;
mod sleep;

pub use fadt::power_ports;
pub use fadts::power_tables;
pub use madt::enabled_processors;
pub use mcfg::ecam_ranges;
pub use removal::remove_all;
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

/// Gives every table of this signature that any root pointer's root tables name to `found`, or why it cannot be used:
/// several times the same, or those of firmware that lets them differ.
pub fn find_all(
    memory: &impl ReadPhysical,
    signature: &[u8; 4],
    mut found: impl FnMut(Result<Table, AcpiError>),
) {
    for root in Rsdp::all(memory).flat_map(|rsdp| rsdp.roots(memory)).flatten() {
        // What a root table has behind the part that can be read, nobody reads.
        let _ = root.each(memory, signature, &mut found);
    }
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
