//! PCI configuration space in memory (PCI Firmware Specification, "MCFG Table Description").

use super::{AcpiError, Table, find_all};
use crate::ecam::{ECAM_CAPACITY, EcamRange, NO_ECAM};
use crate::physical::ReadPhysical;
use arrayvec::ArrayVec;

/// Offset of the first entry.
const ENTRIES: u64 = 44;
/// Bytes of an entry: base address, segment group, first and last bus, four reserved.
const ENTRY_SIZE: u64 = 16;
/// Bytes of a bus, of which a base is a multiple.
const BUS_SIZE: u64 = 1 << 20;
/// No physical address is wider.
const ADDRESS_BITS: u32 = 52;

/// Reads every MCFG that a root table names, and gives each range of segment group 0 once; the rest is [`NO_ECAM`].
/// Without, a guest that finds a table where we do not could write registers there that ports are refused.
pub fn ecam_ranges(memory: &impl ReadPhysical) -> [EcamRange; ECAM_CAPACITY] {
    let mut ranges = ArrayVec::<EcamRange, ECAM_CAPACITY>::new();
    find_all(memory, b"MCFG", |found| {
        let read = found.and_then(|table| {
            table.warn_of_sum();
            entries(memory, &table, |range| {
                if !ranges.contains(&range) && ranges.try_push(range).is_err() {
                    log::warn!("the MCFG has too many ranges: writes by one of them go unnoticed");
                }
            })
        });
        if let Err(error) = read {
            log::warn!("a MCFG, or part of it, cannot be used ({error:?}): writes by it go unnoticed");
        }
    });
    core::array::from_fn(|index| ranges.get(index).copied().unwrap_or(NO_ECAM))
}

/// Gives each range of segment group 0 to `found`. What is good of a table is given before its error.
fn entries(
    memory: &impl ReadPhysical,
    mcfg: &Table,
    mut found: impl FnMut(EcamRange),
) -> Result<(), AcpiError> {
    let bytes = mcfg.length.checked_sub(ENTRIES).ok_or(AcpiError::Malformed)?;
    let mut result = if bytes.is_multiple_of(ENTRY_SIZE) { Ok(()) } else { Err(AcpiError::Malformed) };
    for index in 0..bytes / ENTRY_SIZE {
        let at = mcfg.address + ENTRIES + index * ENTRY_SIZE;
        let base = memory.read_u64(at)?;
        let segment = memory.read_u16(at + 8)?;
        let [first_bus, last_bus] = memory.read_array(at + 10)?;
        if segment != 0 {
            continue;
        }
        let range = EcamRange { base, first_bus, last_bus, reserved: [0; 6] };
        if is_possible(range) {
            found(range);
        } else {
            result = Err(AcpiError::Malformed);
        }
    }
    result
}

/// Returns whether buses can lie there.
fn is_possible(range: EcamRange) -> bool {
    let end = range.base.checked_add((u64::from(range.last_bus) + 1) * BUS_SIZE);
    range.base != 0
        && range.base.is_multiple_of(BUS_SIZE)
        && range.first_bus <= range.last_bus
        && end.is_some_and(|end| end <= 1 << ADDRESS_BITS)
}

#[cfg(test)]
mod tests {
    use super::super::rsdp::tests::put_rsdp;
    use super::super::sdt::tests::put_table;
    use super::*;
    use crate::physical::TestMemory;
    use proptest::prelude::*;

    fn entry(base: u64, segment: u16, first_bus: u8, last_bus: u8) -> Vec<u8> {
        [&base.to_le_bytes()[..], &segment.to_le_bytes(), &[first_bus, last_bus, 0, 0, 0, 0]].concat()
    }

    /// A machine whose XSDT names MCFGs with these bodies.
    fn machine(bodies: &[Vec<u8>]) -> TestMemory {
        let mut memory = TestMemory::new();
        put_rsdp(&mut memory, 0xe_0000, 0, 0x2000);
        let tables = (0..bodies.len() as u64).map(|index| 0x4000 + 0x1000 * index);
        put_table(&mut memory, 0x2000, b"XSDT", &tables.flat_map(u64::to_le_bytes).collect::<Vec<_>>());
        for (index, body) in bodies.iter().enumerate() {
            put_table(&mut memory, 0x4000 + 0x1000 * index, b"MCFG", body);
        }
        memory
    }

    fn body(entries: &[Vec<u8>]) -> Vec<u8> {
        [vec![0; 8], entries.concat()].concat()
    }

    /// Base and buses of what is found.
    fn found(memory: &TestMemory) -> Vec<(u64, u8, u8)> {
        let ranges = ecam_ranges(memory);
        let used = ranges.iter().filter(|range| range.base != 0);
        used.map(|range| (range.base, range.first_bus, range.last_bus)).collect()
    }

    #[test]
    fn ranges_of_the_segment_that_ports_reach_are_found_once() {
        let both = [
            entry(0xe000_0000, 0, 0, 0x7f),
            entry(0xd000_0000, 1, 0, 0xff),
            entry(0x40_0000_0000, 0, 0x80, 0xff),
        ];
        let expected = [(0xe000_0000, 0, 0x7f), (0x40_0000_0000, 0x80, 0xff)];
        assert_eq!(found(&machine(&[body(&both)])), expected);
        assert_eq!(found(&machine(&[body(&both), body(&both[..1])])), expected);
        assert_eq!(found(&machine(&[])), []);
        assert_eq!(found(&machine(&[body(&[])])), []);
    }

    #[test]
    fn tables_that_differ_all_count() {
        let tables = [body(&[entry(0xe000_0000, 0, 0, 0xff)]), body(&[entry(0xf000_0000, 0, 0, 0x3f)])];
        assert_eq!(found(&machine(&tables)), [(0xe000_0000, 0, 0xff), (0xf000_0000, 0, 0x3f)]);
        let many: Vec<_> = (1..=20).map(|index| entry(index << 28, 0, 0, 1)).collect();
        assert_eq!(found(&machine(&[body(&many)])).len(), ECAM_CAPACITY);
    }

    #[test]
    fn what_is_impossible_costs_nothing_that_is_good() {
        let good = entry(0xe000_0000, 0, 0, 0xff);
        for bad in [
            entry(0, 0, 0, 0xff),
            entry(0xe008_0000, 0, 0, 0xff),
            entry(0xe000_0000, 0, 9, 8),
            entry(0xf_ffff_fff0_0000, 0, 0, 1),
            entry(0xffff_ffff_fff0_0000, 0, 0, 0),
            vec![1; 15],
        ] {
            assert_eq!(found(&machine(&[body(&[good.clone(), bad])])), [(0xe000_0000, 0, 0xff)]);
        }
        assert_eq!(found(&machine(&[vec![0; 7], body(&[good])])), [(0xe000_0000, 0, 0xff)]);
    }

    proptest! {
        #[test]
        fn whatever_a_table_holds_what_is_found_is_possible(
            entries in proptest::collection::vec(
                (0_u64..1 << 20, 0_u32..54, 0_u16..2, any::<u8>(), any::<u8>()), 0..40),
            noise in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let entries: Vec<_> = entries
                .into_iter()
                .map(|(base, shift, segment, first, last)| (base << shift, segment, first, last))
                .collect();
            let bytes: Vec<_> =
                entries.iter().map(|&(base, segment, first, last)| entry(base, segment, first, last)).collect();
            let memory = machine(&[[body(&bytes), noise.clone()].concat(), noise]);
            let ranges = ecam_ranges(&memory);
            for range in ranges.iter().filter(|range| range.base != 0) {
                prop_assert!(is_possible(*range), "{range:?}");
                let first = u16::from(range.first_bus) << 8;
                prop_assert_eq!(range.page_of(first).and_then(|page| range.function_at(page)), Some(first));
            }
            let is_full = ranges.iter().all(|range| range.base != 0);
            for &(base, segment, first_bus, last_bus) in entries.iter().filter(|entry| entry.1 == 0) {
                let range = EcamRange { base, first_bus, last_bus, reserved: [0; 6] };
                prop_assert!(segment != 0 || is_full || is_possible(range) == ranges.contains(&range));
            }
        }
    }
}
