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

/// The IDs that address every local APIC at once (SDM, "Physical Destination Mode"; "Determining IPI Destination in
/// x2APIC Mode"): no processor has them.
const EVERYBODY: (u32, u32) = (0xff, u32::MAX);

/// Calls `found` with the local APIC ID of each enabled processor, in the table's order.
///
/// # Errors
///
/// [`AcpiError::Malformed`] where an entry's length is impossible. The processors of all entries before it, and of
/// those behind it that can still be found, have been told.
pub fn enabled_processors(
    memory: &impl ReadPhysical,
    madt: &Table,
    mut found: impl FnMut(u32),
) -> Result<(), AcpiError> {
    let end = madt.address + madt.length;
    let mut at = madt.address + ENTRIES;
    let mut result = Ok(());
    while at < end {
        let [kind, length] = memory.read_array(at)?;
        let length = u64::from(length);
        if length < 2 || at + length > end {
            return Err(AcpiError::Malformed);
        }
        let (id, everybody, flags) = match (kind, length) {
            LOCAL_APIC => (memory.read_array::<1>(at + 3)?[0].into(), EVERYBODY.0, memory.read_u32(at + 4)?),
            LOCAL_X2APIC => (memory.read_u32(at + 4)?, EVERYBODY.1, memory.read_u32(at + 8)?),
            (0 | 9, _) => {
                result = Err(AcpiError::Malformed);
                (0, 0, 0)
            }
            _ => (0, 0, 0),
        };
        if flags & ENABLED != 0 && id != everybody {
            found(id);
        }
        at += length;
    }
    result
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

    fn told(entries: &[&[u8]]) -> (Result<(), AcpiError>, Vec<u32>) {
        let mut memory = TestMemory::new();
        put_madt(&mut memory, entries);
        let mut ids = Vec::new();
        let madt = Table::read(&memory, 0x4000).unwrap();
        (enabled_processors(&memory, &madt, |id| ids.push(id)), ids)
    }

    fn processors(entries: &[&[u8]]) -> Result<Vec<u32>, AcpiError> {
        let (result, ids) = told(entries);
        result.map(|()| ids)
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
    fn an_id_that_addresses_everybody_is_no_processor() {
        let x2apic = |id: u32| [&[9, 16, 0, 0][..], &id.to_le_bytes(), &[1, 0, 0, 0, 0, 0, 0, 0]].concat();
        let ids = processors(&[
            &[0, 8, 1, 0xff, 1, 0, 0, 0],
            &x2apic(u32::MAX),
            &[0, 8, 0, 0xfe, 1, 0, 0, 0],
            &x2apic(0xff),
        ]);
        assert_eq!(ids, Ok(vec![0xfe, 0xff]));
    }

    #[test]
    fn processors_beside_a_broken_entry_are_told() {
        let good = |id| [0, 8, id, id, 1, 0, 0, 0];
        let odd = [0_u8, 7, 0, 9, 1, 0, 0];
        assert_eq!(told(&[&good(1), &odd, &good(2)]), (Err(AcpiError::Malformed), vec![1, 2]));
        assert_eq!(told(&[&good(1), &[5, 1], &good(2)]), (Err(AcpiError::Malformed), vec![1]));
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
