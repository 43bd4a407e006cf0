//! The table that tells an operating system of the unit ("BIOS Considerations"), put beside those that the emulator's
//! BIOS made.

use crate::bus::Bus;
use crate::unit;

/// Where a BIOS leaves the root pointer (ACPI Specification, "Finding the RSDP on IA-PC Systems").
const SEARCHED: core::ops::Range<u64> = 0xe_0000..0x10_0000;
const HEADER: usize = 36;

/// A change of memory that has the unit told of.
pub(crate) struct Patch {
    /// Memory to be written.
    pub(crate) writes: Vec<(u64, Vec<u8>)>,
    /// The root pointer, which the BIOS has write-protected by then.
    pub(crate) pointer: (u64, Vec<u8>),
}

/// What has to be written for the table to be found, once the BIOS has made its own.
pub(crate) fn patch(bus: &mut impl Bus) -> Option<Patch> {
    let (at, mut pointer) = SEARCHED.step_by(16).map(|at| (at, copy(bus, at, 20))).find(is_pointer)?;
    let root = u32::from_le_bytes(*pointer[16..].first_chunk()?);
    let length = u32::from_le_bytes(*copy(bus, u64::from(root) + 4, 4).first_chunk()?);
    let mut table = copy(bus, root.into(), usize::try_from(length).ok()?.min(0x1000));
    if !table.starts_with(b"RSDT") || table.len() < HEADER || sum(&table) != 0 {
        return None;
    }
    // The BIOS keeps 64 KiB for its tables and fills but the first few.
    let place = (root & !0xffff) + 0xf000;
    let (list, dmar) = (place, place + 0x800);
    table.extend(dmar.to_le_bytes());
    let length = u32::try_from(table.len()).ok()?;
    table[4..8].copy_from_slice(&length.to_le_bytes());
    balance(&mut table, 9);
    pointer[16..20].copy_from_slice(&list.to_le_bytes());
    balance(&mut pointer, 8);
    Some(Patch { writes: vec![(list.into(), table), (dmar.into(), description())], pointer: (at, pointer) })
}

/// One unit for every device of the machine ("DMA Remapping Reporting Structure").
fn description() -> Vec<u8> {
    let mut table = Vec::from(*b"DMAR");
    table.extend([0, 0, 0, 0, 1, 0]);
    table.extend(*b"XMHF  DEVICES ");
    table.extend([1, 0, 0, 0]);
    table.extend(*b"XMHF");
    table.extend([1, 0, 0, 0]);
    // 47 + 1 bits of addresses; interrupts can be remapped.
    table.extend([47, 1]);
    table.extend([0; 10]);
    // A hardware unit definition of 16 bytes, of all devices in segment 0.
    table.extend([0, 0, 16, 0, 1, 0, 0, 0]);
    table.extend(unit::BASE.to_le_bytes());
    let length = u32::try_from(table.len()).unwrap_or_default();
    table[4..8].copy_from_slice(&length.to_le_bytes());
    balance(&mut table, 9);
    table
}

fn is_pointer((_, bytes): &(u64, Vec<u8>)) -> bool {
    bytes.starts_with(b"RSD PTR ") && sum(bytes) == 0
}

fn copy(bus: &mut impl Bus, at: u64, size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    bus.read(at, &mut bytes);
    bytes
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

/// Sets the checksum at `at` so that all bytes sum up to zero.
fn balance(bytes: &mut [u8], at: usize) {
    bytes[at] = bytes[at].wrapping_sub(sum(bytes));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::fake::FakeBus;

    /// What a BIOS leaves: the root pointer, and a root table of one entry.
    fn bios() -> FakeBus {
        let mut bus = FakeBus::default();
        let mut table = [&b"RSDT"[..], &[40, 0, 0, 0, 1, 0], &[0; 26], &[0, 0, 5, 0]].concat();
        balance(&mut table, 9);
        bus.write(0x3ff_0000, &table);
        let mut pointer = [&b"RSD PTR \0XMHF  \0"[..], &0x3ff_0000u32.to_le_bytes()].concat();
        balance(&mut pointer, 8);
        bus.write(0xf_5a20, &pointer);
        bus
    }

    #[test]
    fn the_unit_is_told_of_behind_the_other_tables() {
        let mut bus = bios();
        let patch = patch(&mut bus).unwrap();
        assert_eq!(patch.pointer.0, 0xf_5a20);
        assert_eq!(sum(&patch.pointer.1), 0);
        let [(list, root), (at, dmar)] = &patch.writes[..] else { panic!() };
        assert_eq!(patch.pointer.1[16..20], u32::try_from(*list).unwrap().to_le_bytes());
        assert_eq!((sum(root), sum(dmar), root.len(), dmar.len()), (0, 0, 44, 64));
        assert_eq!(root[36..40], [0, 0, 5, 0]);
        assert_eq!(root[40..44], u32::try_from(*at).unwrap().to_le_bytes());
        assert_eq!(dmar[56..64], unit::BASE.to_le_bytes());
    }

    #[test]
    fn tables_that_are_not_there_yet_are_waited_for() {
        assert!(patch(&mut FakeBus::default()).is_none());
        let mut bus = bios();
        bus.write(0x3ff_0020, &[1]);
        assert!(patch(&mut bus).is_none(), "a table that is being written");
    }
}
