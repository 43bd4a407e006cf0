//! System description tables and the lists of them (ACPI, "System Description Table Header").

use super::AcpiError;
use crate::physical::{ReadPhysical, Unreadable};

/// Bytes of the header that every table starts with.
pub(super) const HEADER_SIZE: u64 = 36;
/// No table that is read here is longer; a larger length is damage.
const LENGTH_LIMIT: u64 = 1 << 20;

/// A table whose length is possible.
///
/// Decision: a wrong checksum is warned of and the table used, as operating systems do. Who drops a table that the
/// guest uses is blind to what the guest does by it: a CPU that it starts, a port by which it cuts the power.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    /// Physical address of the header.
    pub address: u64,
    /// Bytes, the header included.
    pub length: u64,
    /// The first four bytes.
    pub signature: [u8; 4],
    /// The bytes add up to 0, as the checksum has them.
    pub is_sum_right: bool,
}

/// Width of an entry of a root table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EntrySize {
    /// RSDT.
    Bytes4 = 4,
    /// XSDT.
    Bytes8 = 8,
}

/// RSDT or XSDT.
#[derive(Clone, Copy, Debug)]
pub(super) struct RootTable {
    pub(super) table: Table,
    pub(super) entry_size: EntrySize,
}

impl Table {
    /// Reads the header at `address` and adds up the whole table.
    ///
    /// # Errors
    ///
    /// [`AcpiError`] where the length is impossible or the table cannot be read.
    pub fn read(memory: &impl ReadPhysical, address: u64) -> Result<Self, AcpiError> {
        let signature = memory.read_array(address)?;
        let length = u64::from(memory.read_u32(address.saturating_add(4))?);
        if !(HEADER_SIZE..=LENGTH_LIMIT).contains(&length) {
            return Err(AcpiError::Malformed);
        }
        let is_sum_right = memory.byte_sum(address, length)? == 0;
        Ok(Self { address, length, signature, is_sum_right })
    }

    /// Says so where the table is used in spite of its checksum.
    pub(super) fn warn_of_sum(&self) {
        if !self.is_sum_right {
            let name = core::str::from_utf8(&self.signature).unwrap_or("?");
            log::warn!(
                "ACPI table {name}: the checksum is wrong; the table is used, as operating systems do"
            );
        }
    }
}

impl RootTable {
    /// Reads the table of this signature at `address`.
    pub(super) fn read(
        memory: &impl ReadPhysical,
        address: u64,
        signature: &[u8; 4],
        entry_size: EntrySize,
    ) -> Result<Self, AcpiError> {
        let table = Table::read(memory, address)?;
        if &table.signature == signature { Ok(Self { table, entry_size }) } else { Err(AcpiError::Malformed) }
    }

    /// Finds the first table of this signature whose checksum is right, else the first; entries that point nowhere
    /// are passed over.
    pub(super) fn find(&self, memory: &impl ReadPhysical, signature: &[u8; 4]) -> Result<Table, AcpiError> {
        let mut best = Err(AcpiError::Absent);
        self.each(memory, signature, |result| {
            let is_sound = |table: Result<Table, AcpiError>| table.is_ok_and(|table| table.is_sum_right);
            best = if is_sound(result) && !is_sound(best) { result } else { best.or(result) };
        })?;
        best
    }

    /// Gives each table of this signature to `found`, or why it cannot be used.
    pub(super) fn each(
        &self,
        memory: &impl ReadPhysical,
        signature: &[u8; 4],
        mut found: impl FnMut(Result<Table, AcpiError>),
    ) -> Result<(), AcpiError> {
        let step = self.entry_size as u64;
        for index in 0..(self.table.length - HEADER_SIZE) / step {
            let entry = self.table.address + HEADER_SIZE + index * step;
            let address = self.entry(memory, entry)?;
            if memory.read_array(address) == Ok(*signature) {
                found(Table::read(memory, address));
            }
        }
        Ok(())
    }

    /// Reads the entry at `address`: where a table is.
    pub(super) fn entry(&self, memory: &impl ReadPhysical, address: u64) -> Result<u64, Unreadable> {
        match self.entry_size {
            EntrySize::Bytes4 => memory.read_u32(address).map(u64::from),
            EntrySize::Bytes8 => memory.read_u64(address),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::rsdp::tests::put_rsdp;
    use super::super::{Rsdp, find_all};
    use super::*;
    use crate::physical::TestMemory;

    /// Puts a table at `address`, with `body` behind the header and a right sum.
    pub(in crate::acpi) fn put_table(
        memory: &mut TestMemory,
        address: usize,
        signature: &[u8; 4],
        body: &[u8],
    ) {
        let length = 36 + body.len();
        memory.put(address, signature);
        memory.put(address + 4, &(length as u32).to_le_bytes());
        memory.put(address + 36, body);
        memory.seal(address, length, 9);
    }

    /// Returns a machine whose RSDT names the table at 0x3000 and whose XSDT those at 0x4000 and 0x5000.
    fn machine() -> TestMemory {
        let mut memory = TestMemory::new();
        put_rsdp(&mut memory, 0xe_0000, 0x1000, 0x2000);
        put_table(&mut memory, 0x1000, b"RSDT", &0x3000_u32.to_le_bytes());
        let entries = [u64::MAX - 1, 0x4000, 0x5000];
        put_table(&mut memory, 0x2000, b"XSDT", &entries.map(u64::to_le_bytes).concat());
        put_table(&mut memory, 0x3000, b"APIC", &[1]);
        put_table(&mut memory, 0x4000, b"FACP", &[2]);
        put_table(&mut memory, 0x5000, b"APIC", &[3, 3]);
        memory
    }

    fn find(memory: &TestMemory, signature: &[u8; 4]) -> Result<u64, AcpiError> {
        let rsdp = Rsdp::search(memory).unwrap();
        super::super::find(memory, &rsdp, signature).map(|table| table.address)
    }

    #[test]
    fn the_xsdt_is_preferred() {
        assert_eq!(find(&machine(), b"APIC"), Ok(0x5000));
        assert_eq!(find(&machine(), b"FACP"), Ok(0x4000));
        assert_eq!(find(&machine(), b"DMAR"), Err(AcpiError::Absent));
    }

    #[test]
    fn the_rsdt_serves_where_the_xsdt_is_damaged_or_absent() {
        let mut memory = machine();
        memory.0[0x2009] ^= 1;
        assert_eq!(find(&memory, b"APIC"), Ok(0x3000));
        let mut memory = machine();
        put_rsdp(&mut memory, 0xe_0000, 0x1000, 0);
        assert_eq!(find(&memory, b"APIC"), Ok(0x3000));
        assert_eq!(find(&memory, b"FACP"), Err(AcpiError::Absent));
    }

    #[test]
    fn a_table_with_a_wrong_sum_is_used_without_a_better_one() {
        let mut memory = machine();
        memory.0[0x5024] ^= 1;
        assert_eq!(find(&memory, b"APIC"), Ok(0x5000));
        assert!(!Table::read(&memory, 0x5000).unwrap().is_sum_right);
        put_table(&mut memory, 0x4000, b"APIC", &[2]);
        assert_eq!(find(&memory, b"APIC"), Ok(0x4000));
        put_table(&mut memory, 0x5000, b"APIC", &[3]);
        memory.0[0x4024] ^= 1;
        assert_eq!(find(&memory, b"APIC"), Ok(0x5000));
        memory.0[0x5024] ^= 1;
        assert_eq!(find(&memory, b"APIC"), Ok(0x4000), "the first of equals");
        put_table(&mut memory, 0x4000, b"APIC", &[2]);
        put_table(&mut memory, 0x5000, b"APIC", &[3]);
        assert_eq!(find(&memory, b"APIC"), Ok(0x4000), "the first of equals");
    }

    #[test]
    fn what_lies_behind_a_root_table_is_no_entry_of_it() {
        let mut memory = machine();
        put_table(&mut memory, 0x6000, b"DMAR", &[4]);
        for (root, length) in [(0x1000, 4), (0x2000, 24)] {
            for at in (root + HEADER_SIZE as usize + length..root + 0x800).step_by(4) {
                memory.put(at, &0x6000_u64.to_le_bytes());
                assert_eq!(find(&memory, b"DMAR"), Err(AcpiError::Absent), "{at:#x}");
                memory.put(at, &[0; 8]);
            }
        }
    }

    #[test]
    fn a_root_table_with_a_wrong_sum_serves_without_a_better() {
        let mut memory = machine();
        memory.0[0x2009] ^= 1;
        memory.0[0x1009] ^= 1;
        assert_eq!(find(&memory, b"FACP"), Ok(0x4000));
        put_rsdp(&mut memory, 0xe_0000, 0x1000, 0);
        assert_eq!(find(&memory, b"APIC"), Ok(0x3000));
    }

    #[test]
    fn damage_is_told_from_absence() {
        for length in [0_u32, 35, 0x10_0001, u32::MAX] {
            let mut memory = machine();
            memory.put(0x4004, &length.to_le_bytes());
            assert_eq!(find(&memory, b"FACP"), Err(AcpiError::Malformed), "{length}");
        }
        let mut memory = machine();
        put_rsdp(&mut memory, 0xe_0000, 0xffff_0000, 1 << 40);
        assert_eq!(find(&memory, b"APIC"), Err(AcpiError::Unreadable));
        put_rsdp(&mut memory, 0xe_0000, 0x3000, 0);
        assert_eq!(find(&memory, b"APIC"), Err(AcpiError::Malformed));
    }

    #[test]
    fn tables_of_both_root_tables_are_found_where_they_differ() {
        let all = |memory: &TestMemory, signature| {
            let mut found = Vec::new();
            find_all(memory, signature, |table| found.push(table.map(|table| table.address)));
            found
        };
        assert_eq!(all(&machine(), b"APIC"), [Ok(0x5000), Ok(0x3000)]);
        assert_eq!(all(&machine(), b"FACP"), [Ok(0x4000)]);
        assert_eq!(all(&machine(), b"DMAR"), []);
        let mut memory = machine();
        memory.put(0x5004, &[0; 4]);
        let damaged = [Err(AcpiError::Malformed), Ok(0x3000)];
        assert_eq!(all(&memory, b"APIC"), damaged, "the XSDT's is damaged");
    }
}
