//! The CPUs of the machine (ACPI, "Multiple APIC Description Table (MADT)").

use super::{AcpiError, Table};
use crate::physical::ReadPhysical;

/// Offset of the first entry.
const ENTRIES: u64 = 44;
/// Entry type and length of a processor by 8-bit local APIC ID.
const LOCAL_APIC: (u8, u64) = (0, 8);
/// Entry type and length of a processor by 32-bit x2APIC ID.
const LOCAL_X2APIC: (u8, u64) = (9, 16);
/// Flags: the processor can be started.
const ENABLED: u32 = 1 << 0;

/// Calls `found` with the local APIC ID of each enabled processor, in the table's order.
///
/// # Errors
///
/// [`AcpiError::Malformed`] where an entry's length is impossible.
pub fn enabled_processors(
    memory: &impl ReadPhysical,
    madt: &Table,
    mut found: impl FnMut(u32),
) -> Result<(), AcpiError> {
    let end = madt.address + madt.length;
    let mut at = madt.address + ENTRIES;
    while at < end {
        let [kind, length] = memory.read_array(at)?;
        let length = u64::from(length);
        if length < 2 || at + length > end {
            return Err(AcpiError::Malformed);
        }
        let (id, flags) = match (kind, length) {
            LOCAL_APIC => (memory.read_array::<1>(at + 3)?[0].into(), memory.read_u32(at + 4)?),
            LOCAL_X2APIC => (memory.read_u32(at + 4)?, memory.read_u32(at + 8)?),
            (0 | 9, _) => return Err(AcpiError::Malformed),
            _ => (0, 0),
        };
        if flags & ENABLED != 0 {
            found(id);
        }
        at += length;
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::super::sdt::tests::put_table;
    use super::*;
    use crate::physical::TestMemory;

    /// Puts a MADT with these entries at 0x4000.
    pub(crate) fn put_madt(memory: &mut TestMemory, entries: &[&[u8]]) {
        let mut body = vec![0; 8];
        body.extend(entries.concat());
        put_table(memory, 0x4000, b"APIC", &body);
    }

    fn processors(entries: &[&[u8]]) -> Result<Vec<u32>, AcpiError> {
        let mut memory = TestMemory::new();
        put_madt(&mut memory, entries);
        let mut ids = Vec::new();
        enabled_processors(&memory, &Table::read(&memory, 0x4000)?, |id| ids.push(id))?;
        Ok(ids)
    }

    #[test]
    fn enabled_processors_of_both_kinds_are_found_in_order() {
        let ids = processors(&[
            &[0, 8, 1, 4, 1, 0, 0, 0],
            &[1, 12, 0, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0],
            &[0, 8, 2, 6, 0, 0, 0, 0],
            &[0, 8, 3, 8, 2, 0, 0, 0],
            &[9, 16, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 9, 0, 0, 0],
            &[9, 16, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0],
            &[0x7f, 2],
            &[0, 8, 5, 0, 1, 0, 0, 0],
        ]);
        assert_eq!(ids, Ok(vec![4, 0x100, 0]));
    }

    #[test]
    fn impossible_lengths_end_the_walk() {
        for entry in
            [&[0_u8, 0][..], &[5, 1], &[0, 7, 0, 0, 1, 0, 0], &[9, 8, 0, 0, 0, 0, 0, 0], &[4, 200, 0, 0]]
        {
            assert_eq!(processors(&[entry]), Err(AcpiError::Malformed), "{entry:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_walked_to_an_end(body in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(ids) = processors(&[&body]) {
                prop_assert!(ids.len() <= body.len() / 8);
            }
        }
    }
}
