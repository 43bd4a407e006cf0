//! Taking a table out of the lists that an operating system finds it by.

use arrayvec::ArrayVec;

use super::rsdp::Rsdp;
use super::sdt::{HEADER_SIZE, RootTable};
use crate::physical::{Unreadable, WritePhysical};

/// Offset of the length in a table's header, and of its checksum.
const LENGTH: u64 = 4;
const CHECKSUM: u64 = 9;
/// Most root tables that a machine has: two for each root pointer.
const ROOTS: usize = 8;

/// Takes every table of this signature out of all root tables, each of which stays sound; returns how many entries
/// went.
///
/// # Errors
///
/// [`Unreadable`] where a root table cannot be written.
pub fn remove_all(memory: &mut impl WritePhysical, signature: &[u8; 4]) -> Result<usize, Unreadable> {
    let roots: ArrayVec<RootTable, ROOTS> =
        Rsdp::all(memory).flat_map(|rsdp| rsdp.roots(memory)).flatten().take(ROOTS).collect();
    roots.iter().try_fold(0, |count, root| Ok(count + remove(memory, root, signature)?))
}

fn remove(
    memory: &mut impl WritePhysical,
    root: &RootTable,
    signature: &[u8; 4],
) -> Result<usize, Unreadable> {
    // Two root pointers may name the same one, which is shorter by now.
    let length = u64::from(memory.read_u32(root.table.address + LENGTH)?).min(root.table.length);
    let (start, step) = (root.table.address + HEADER_SIZE, root.entry_size as u64);
    let count = length.saturating_sub(HEADER_SIZE) / step;
    let (mut kept, mut left) = (start, length - count * step);
    for entry in (0..count).map(|index| start + index * step) {
        let target = root.entry(memory, entry)?;
        if memory.read_array(target) == Ok(*signature) {
            continue;
        }
        let bytes = target.to_le_bytes();
        memory.write(kept, &bytes[..root.entry_size as usize])?;
        (kept, left) = (kept + step, left + step);
    }
    let removed = (length - left) / step;
    if removed != 0 {
        let new_length = u32::try_from(left).map_err(|_| Unreadable)?;
        memory.write(root.table.address + LENGTH, &new_length.to_le_bytes())?;
        let [old_sum] = memory.read_array(root.table.address + CHECKSUM)?;
        let sum = memory.byte_sum(root.table.address, left)?;
        memory.write(root.table.address + CHECKSUM, &[old_sum.wrapping_sub(sum)])?;
    }
    usize::try_from(removed).map_err(|_| Unreadable)
}

#[cfg(test)]
mod tests {
    use super::super::find_all;
    use super::super::rsdp::tests::put_rsdp;
    use super::super::sdt::tests::put_table;
    use super::*;
    use crate::physical::{ReadPhysical, TestMemory};

    fn machine() -> TestMemory {
        let mut memory = TestMemory::new();
        put_rsdp(&mut memory, 0xe_0000, 0x1000, 0x2000);
        let narrow = [0x3000_u32, 0x4000, 0x3000].map(u32::to_le_bytes).concat();
        put_table(&mut memory, 0x1000, b"RSDT", &narrow);
        let wide = [0x4000_u64, u64::MAX - 1, 0x3000, 0x5000].map(u64::to_le_bytes).concat();
        put_table(&mut memory, 0x2000, b"XSDT", &wide);
        put_table(&mut memory, 0x3000, b"DMAR", &[1]);
        put_table(&mut memory, 0x4000, b"FACP", &[2]);
        put_table(&mut memory, 0x5000, b"APIC", &[3]);
        memory
    }

    fn found(memory: &TestMemory, signature: &[u8; 4]) -> usize {
        let mut count = 0;
        find_all(memory, signature, |table| {
            count += usize::from(table.is_ok_and(|table| table.is_sum_right))
        });
        count
    }

    #[test]
    fn a_table_goes_from_every_list_and_the_lists_stay_sound() {
        let mut memory = machine();
        assert_eq!(found(&memory, b"DMAR"), 3);
        assert_eq!(remove_all(&mut memory, b"DMAR"), Ok(3));
        assert_eq!([b"DMAR", b"FACP", b"APIC"].map(|name| found(&memory, name)), [0, 2, 1]);
        for (root, length) in [(0x1000, 40), (0x2000, 36 + 24)] {
            assert_eq!(memory.read_u32(root + 4), Ok(length));
            assert_eq!(memory.byte_sum(root, length.into()), Ok(0));
        }
        assert_eq!(memory.read_u64(0x2024 + 16), Ok(0x5000));
        assert_eq!(memory.read_u64(0x2024 + 8), Ok(u64::MAX - 1));
    }

    #[test]
    fn lists_without_the_table_are_left_alone() {
        let mut memory = machine();
        memory.0[0x1009] ^= 1;
        let before = memory.0.clone();
        assert_eq!(remove_all(&mut memory, b"HPET"), Ok(0));
        assert!(memory.0 == before);
    }

    #[test]
    fn a_list_that_two_pointers_name_loses_the_table_once() {
        let mut memory = machine();
        put_rsdp(&mut memory, 0xe_0100, 0x1000, 0x2000);
        assert_eq!(remove_all(&mut memory, b"DMAR"), Ok(3));
        assert_eq!(memory.byte_sum(0x2000, 60), Ok(0));
        assert_eq!([b"FACP", b"APIC"].map(|name| found(&memory, name)), [4, 2]);
    }
}
