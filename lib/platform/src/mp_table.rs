//! The CPUs of a machine without ACPI (Intel MultiProcessor Specification 1.4, "MP Configuration Table").

use crate::physical::{ReadPhysical, Unreadable};

/// Segment of the extended BIOS data area, in the BIOS data area.
const EBDA_SEGMENT: u64 = 0x40e;
/// Last KiB of conventional memory, and the BIOS's read-only memory.
const FIXED_PLACES: [(u64, u64); 2] = [(0x9_fc00, 0x400), (0xf_0000, 0x1_0000)];
/// The floating pointer structure is one such unit long and starts at a multiple of it.
const UNIT: u64 = 16;
/// Bytes of the configuration table's header.
const HEADER_SIZE: u64 = 44;
/// Entry type and length of a processor; the other entries have 8 bytes.
const PROCESSOR: (u8, u64) = (0, 20);
/// Entry types are in the order of the specification up to this one.
const LAST_BASE_ENTRY: u8 = 4;
/// CPU flags: the processor can be used.
const ENABLED: u8 = 1 << 0;

/// The ID that addresses every local APIC at once: no processor has it.
const EVERYBODY: u8 = 0xff;

/// Calls `found` with the local APIC ID of each usable processor; says whether there is a sound table. One whose
/// checksum is wrong is used, with a warning, as ACPI's tables are.
///
/// # Errors
///
/// [`Unreadable`] where the table lies outside what can be read.
pub fn enabled_processors(
    memory: &impl ReadPhysical,
    mut found: impl FnMut(u32),
) -> Result<bool, Unreadable> {
    let Some(pointer) = search(memory)? else { return Ok(false) };
    let table = u64::from(memory.read_u32(pointer + 4)?);
    let [default_configuration] = memory.read_array(pointer + 11)?;
    if default_configuration != 0 {
        // The specification's default configurations are two processors, with IDs 0 and 1.
        found(0);
        found(1);
        return Ok(true);
    }
    let length = u64::from(memory.read_u16(table + 4)?);
    if table == 0 || memory.read_array(table)? != *b"PCMP" || length < HEADER_SIZE {
        return Ok(false);
    }
    let is_sum_right = memory.byte_sum(table, length)? == 0;
    if !is_sum_right {
        log::warn!("MP table: the checksum is wrong; the table is used");
    }
    let mut at = table + HEADER_SIZE;
    for _ in 0..memory.read_u16(table + 34)? {
        let [kind, id, _, flags] = memory.read_array(at)?;
        let size = if kind == PROCESSOR.0 { PROCESSOR.1 } else { 8 };
        if kind > LAST_BASE_ENTRY || at + size > table + length {
            break;
        }
        if kind == PROCESSOR.0 && flags & ENABLED != 0 && id != EVERYBODY {
            found(id.into());
        }
        at += size;
    }
    Ok(is_sum_right)
}

/// Searches the floating pointer structure.
fn search(memory: &impl ReadPhysical) -> Result<Option<u64>, Unreadable> {
    let ebda = u64::from(memory.read_u16(EBDA_SEGMENT)?) << 4;
    for (base, length) in [(ebda, 0x400)].into_iter().chain(FIXED_PLACES).filter(|&(base, _)| base != 0) {
        for address in (base..base + length).step_by(16) {
            if memory.read_array(address)? == *b"_MP_" && memory.byte_sum(address, UNIT)? == 0 {
                return Ok(Some(address));
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::physical::TestMemory;
    use crate::warnings::warnings;

    /// Puts a floating pointer at `address`; `default` is its first feature byte.
    pub(crate) fn put_pointer(memory: &mut TestMemory, address: usize, table: u32, default: u8) {
        memory.put(address, b"_MP_");
        memory.put(address + 4, &table.to_le_bytes());
        memory.put(address + 8, &[1, 4, 0, default]);
        memory.seal(address, 16, 10);
    }

    fn put_table(memory: &mut TestMemory, address: usize, count: u16, entries: &[&[u8]]) {
        let entries = entries.concat();
        let length = 44 + entries.len();
        memory.put(address, b"PCMP");
        memory.put(address + 4, &(length as u16).to_le_bytes());
        memory.put(address + 34, &count.to_le_bytes());
        memory.put(address + 44, &entries);
        memory.seal(address, length, 7);
    }

    fn processor(id: u8, flags: u8) -> Vec<u8> {
        let mut entry = vec![0; 20];
        (entry[1], entry[3]) = (id, flags);
        entry
    }

    fn processors(memory: &TestMemory) -> (bool, Vec<u32>) {
        let mut ids = Vec::new();
        let sound = enabled_processors(memory, |id| ids.push(id)).unwrap();
        (sound, ids)
    }

    #[test]
    fn usable_processors_are_found_from_every_place() {
        for place in [0x9_fc00, 0xf_0000, 0xf_fff0, 0x8_0000] {
            let mut memory = TestMemory::new();
            memory.put(0x40e, &0x8000_u16.to_le_bytes());
            put_pointer(&mut memory, place, 0x5000, 0);
            let bus = [1, 0, b'I', b'S', b'A', b' ', b' ', b' '];
            put_table(&mut memory, 0x5000, 4, &[&processor(0, 3), &processor(1, 0), &bus, &processor(6, 1)]);
            assert_eq!(processors(&memory), (true, vec![0, 6]), "{place:#x}");
        }
    }

    #[test]
    fn a_default_configuration_has_two_processors() {
        let mut memory = TestMemory::new();
        put_pointer(&mut memory, 0xf_0000, 0, 5);
        assert_eq!(processors(&memory), (true, vec![0, 1]));
    }

    #[test]
    fn signature_sum_and_count_decide_whether_a_table_is_one() {
        let mut memory = TestMemory::new();
        assert_eq!(processors(&memory), (false, vec![]));
        put_pointer(&mut memory, 0xf_0000, 0x5000, 0);
        assert_eq!(processors(&memory), (false, vec![]));
        put_table(&mut memory, 0x5000, 9, &[&processor(2, 1)]);
        assert_eq!(processors(&memory), (true, vec![2]));
        memory.0[0x5030] ^= 1;
        assert_eq!(processors(&memory), (false, vec![2]));
        memory.0[0x5000] ^= 1;
        assert_eq!(processors(&memory), (false, vec![]));
    }

    #[test]
    fn a_table_is_walked_to_its_end_or_an_entry_of_no_kind() {
        let found = |entries: &[&[u8]]| {
            let mut memory = TestMemory::new();
            put_pointer(&mut memory, 0xf_0000, 0x5000, 0);
            put_table(&mut memory, 0x5000, entries.len() as u16, entries);
            processors(&memory)
        };
        assert_eq!(found(&[]), (true, vec![]));
        for kind in 1..=5 {
            let expected = if kind <= LAST_BASE_ENTRY { vec![6] } else { vec![] };
            assert_eq!(found(&[&[kind, 0, 0, 0, 0, 0, 0, 0], &processor(6, 1)]), (true, expected), "{kind}");
        }
        // The second entry is cut short by the table's end.
        assert_eq!(found(&[&processor(6, 1), &processor(7, 1)[..19]]), (true, vec![6]));
        assert_eq!(found(&[&processor(6, 1), &processor(7, 1)]), (true, vec![6, 7]));
    }

    #[test]
    fn a_table_without_room_for_its_header_is_none() {
        let mut memory = TestMemory::new();
        put_pointer(&mut memory, 0xf_0000, 0x5000, 0);
        put_table(&mut memory, 0x5000, 0, &[]);
        memory.put(0x5004, &43_u16.to_le_bytes());
        memory.seal(0x5000, 43, 7);
        assert_eq!(processors(&memory), (false, vec![]));
    }

    #[test]
    fn a_wrong_sum_is_warned_of_and_a_right_one_is_not() {
        let mut memory = TestMemory::new();
        put_pointer(&mut memory, 0xf_0000, 0x5000, 0);
        put_table(&mut memory, 0x5000, 1, &[&processor(2, 1)]);
        assert_eq!(warnings(|| _ = processors(&memory)), [""; 0]);
        memory.0[0x5030] ^= 1;
        let warning = "MP table: the checksum is wrong; the table is used";
        assert_eq!(warnings(|| _ = processors(&memory)), [warning]);
    }

    #[test]
    fn an_id_that_addresses_everybody_is_no_processor() {
        let mut memory = TestMemory::new();
        put_pointer(&mut memory, 0xf_0000, 0x5000, 0);
        put_table(&mut memory, 0x5000, 2, &[&processor(0xff, 1), &processor(0xfe, 1)]);
        assert_eq!(processors(&memory), (true, vec![0xfe]));
    }
}
