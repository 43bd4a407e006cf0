//! The root system description pointer (ACPI, "Root System Description Pointer (RSDP)").

use super::AcpiError;
use super::sdt::{EntrySize, RootTable};
use crate::physical::{ReadPhysical, Unreadable};

/// Segment of the extended BIOS data area, in the BIOS data area.
const EBDA_SEGMENT: u64 = 0x40e;
/// Bytes of the extended BIOS data area that are searched.
const EBDA_SEARCHED: u64 = 0x400;
/// The BIOS's read-only memory.
const BIOS: (u64, u64) = (0xe_0000, 0x2_0000);
/// The structure starts at a multiple of this.
const BOUNDARY: usize = 16;
/// Bytes of the structure of revision 0.
const LENGTH_V1: u64 = 20;
/// Bytes of the structure of revision 2.
const LENGTH_V2: u64 = 36;

/// The root pointer: where the list of tables is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rsdp {
    /// Physical address of the pointer itself.
    pub address: u64,
    rsdt: u32,
    xsdt: Option<u64>,
}

impl Rsdp {
    /// Searches the places where a BIOS puts it.
    ///
    /// # Errors
    ///
    /// [`AcpiError::Absent`] where there is none.
    pub fn search(memory: &impl ReadPhysical) -> Result<Self, AcpiError> {
        Self::all(memory).next().ok_or(AcpiError::Absent)
    }

    /// Returns all that lie there: systems differ in which they pass over.
    pub fn all(memory: &impl ReadPhysical) -> impl Iterator<Item = Self> {
        let ebda = u64::from(memory.read_u16(EBDA_SEGMENT).unwrap_or(0)) << 4;
        [(ebda, EBDA_SEARCHED), BIOS]
            .into_iter()
            .filter(|&(base, _)| base != 0)
            .flat_map(|(base, length)| (base..base + length).step_by(BOUNDARY))
            .filter_map(|address| Self::read(memory, address).ok().flatten())
    }

    /// Returns the root table: XSDT where its checksum is right, else RSDT where that one's is, else whichever there
    /// is.
    pub(super) fn root(&self, memory: &impl ReadPhysical) -> Result<RootTable, AcpiError> {
        let [wide, narrow] = self.roots(memory);
        if let Ok(root) = wide
            && root.table.is_sum_right
        {
            return wide;
        }
        match (wide, narrow) {
            (Ok(wide), Ok(narrow)) => Ok(if narrow.table.is_sum_right { narrow } else { wide }),
            (Ok(wide), Err(_)) => Ok(wide),
            (Err(_), narrow) => narrow,
        }
    }

    /// Both root tables, as far as they are there: XSDT, RSDT. Systems differ in which they believe.
    pub(super) fn roots(&self, memory: &impl ReadPhysical) -> [Result<RootTable, AcpiError>; 2] {
        let wide = self.xsdt.ok_or(AcpiError::Absent);
        [
            wide.and_then(|address| RootTable::read(memory, address, b"XSDT", EntrySize::Bytes8)),
            RootTable::read(memory, self.rsdt.into(), b"RSDT", EntrySize::Bytes4),
        ]
    }

    /// Reads the structure at `address`, if it is one.
    fn read(memory: &impl ReadPhysical, address: u64) -> Result<Option<Self>, Unreadable> {
        if memory.read_array::<8>(address)? != *b"RSD PTR " || memory.byte_sum(address, LENGTH_V1)? != 0 {
            return Ok(None);
        }
        let [revision] = memory.read_array(address + 15)?;
        let length = u64::from(memory.read_u32(address + 20)?);
        let extended = revision >= 2 && length >= LENGTH_V2 && memory.byte_sum(address, LENGTH_V2)? == 0;
        let xsdt = if extended { memory.read_u64(address + 24)? } else { 0 };
        Ok(Some(Self {
            address,
            rsdt: memory.read_u32(address + 16)?,
            xsdt: Some(xsdt).filter(|&xsdt| xsdt != 0),
        }))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::physical::TestMemory;

    /// Puts a root pointer of revision 2 at `address`.
    pub(in crate::acpi) fn put_rsdp(memory: &mut TestMemory, address: usize, rsdt: u32, xsdt: u64) {
        memory.put(address, b"RSD PTR ");
        memory.put(address + 15, &[2]);
        memory.put(address + 16, &rsdt.to_le_bytes());
        memory.put(address + 20, &36_u32.to_le_bytes());
        memory.put(address + 24, &xsdt.to_le_bytes());
        memory.seal(address, 20, 8);
        memory.seal(address, 36, 32);
    }

    #[test]
    fn it_is_found_in_the_bios_and_in_the_ebda_first() {
        let mut memory = TestMemory::new();
        assert_eq!(Rsdp::search(&memory), Err(AcpiError::Absent));
        put_rsdp(&mut memory, 0xf_fff0 - 0x20, 0x1000, 0);
        assert_eq!(Rsdp::search(&memory).unwrap().address, 0xf_ffd0);
        memory.put(0x40e, &0x9fc0_u16.to_le_bytes());
        put_rsdp(&mut memory, 0x9_fc10, 0x2000, 0x3000);
        let expected = Rsdp { address: 0x9_fc10, rsdt: 0x2000, xsdt: Some(0x3000) };
        assert_eq!(Rsdp::search(&memory), Ok(expected));
    }

    #[test]
    fn a_wrong_sum_hides_it_and_a_wrong_extended_sum_hides_the_xsdt() {
        let mut memory = TestMemory::new();
        put_rsdp(&mut memory, 0xe_0000, 0x1000, 0x2000);
        memory.0[0xe_0020] ^= 1;
        assert_eq!(Rsdp::search(&memory).unwrap().xsdt, None);
        memory.0[0xe_0008] ^= 1;
        assert_eq!(Rsdp::search(&memory), Err(AcpiError::Absent));
    }

    #[test]
    fn revision_0_has_no_xsdt() {
        let mut memory = TestMemory::new();
        put_rsdp(&mut memory, 0xe_0000, 0x1000, 0x2000);
        memory.put(0xe_000f, &[0]);
        memory.seal(0xe_0000, 20, 8);
        assert_eq!(Rsdp::search(&memory).unwrap().xsdt, None);
    }
}
