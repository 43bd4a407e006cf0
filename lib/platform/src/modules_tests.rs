//! Tests of the module roles.

use super::*;
use crate::physical::TestMemory;

const IMAGE: PhysRange = PhysRange { base: 0x1_0000, length: LOADER_SIZE + 0x3000 };
const SECTOR: PhysRange = PhysRange { base: 0x8_0000, length: 512 };
const SINIT: PhysRange = PhysRange { base: 0x9_0000, length: 0x400 };
const DATA: PhysRange = PhysRange { base: 0xa_0000, length: 7 };

/// A machine with one module of every kind in memory.
fn machine() -> TestMemory {
    let mut memory = TestMemory::new();
    let base = 0x1_0000;
    memory.put(base, &LOADER_MAGIC.to_le_bytes());
    memory.put(base + 8, &0x80_u32.to_le_bytes());
    memory.put(base + 16, &0x3000_u64.to_le_bytes());
    let (end, bss) = (RUNTIME_OFFSET + 0x3000, RUNTIME_OFFSET + 0x5000);
    let words = [IMAGE_MAGIC, 0xffff_ffff_8004_0100, end - 0x2000, end - 0x1000, end, bss, 0x10_0000, 0x1000];
    let header: Vec<_> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    memory.put(base + 0x1_0000, &header);
    memory.put(0x8_01fe, &[0x55, 0xaa]);
    memory.put(0x9_0000, &2_u16.to_le_bytes());
    memory.put(0x9_0010, &0x8086_u32.to_le_bytes());
    memory.put(0x9_0018, &0x100_u32.to_le_bytes());
    memory
}

fn refused(memory: &TestMemory, list: &[PhysRange]) -> ModuleError {
    Modules::assign(memory, list).unwrap_err()
}

#[test]
fn the_two_mandatory_modules_are_enough() {
    let modules = Modules::assign(&machine(), &[IMAGE, SECTOR]).unwrap();
    assert_eq!((modules.image.file, modules.boot_sector), (IMAGE, SECTOR));
    assert_eq!((modules.image.entry, modules.image.runtime_size), (0x80, 0x3000));
    assert_eq!(modules.image.header.pool_bytes_per_cpu, 0x1000);
    assert_eq!((modules.sinit, modules.hypapp), (None, None));
}

#[test]
fn sinit_is_known_by_its_header_wherever_it_stands() {
    let memory = machine();
    for list in [[SINIT, IMAGE, SECTOR, DATA], [IMAGE, SECTOR, SINIT, DATA], [IMAGE, SECTOR, DATA, SINIT]] {
        let modules = Modules::assign(&memory, &list).unwrap();
        assert_eq!((modules.image.file, modules.boot_sector), (IMAGE, SECTOR));
        assert_eq!((modules.sinit, modules.hypapp), (Some(SINIT), Some(DATA)));
    }
}

#[test]
fn a_module_that_differs_in_one_field_is_no_sinit() {
    // Type, subtype, vendor, and a size larger than the module or smaller than the header, in units of 4 bytes.
    for (offset, value) in [(0, 3_u32), (2, 1), (16, 0x8087), (24, 0x101), (24, 0x1f)] {
        let mut memory = machine();
        memory.put(0x9_0000 + offset, &value.to_le_bytes()[..2]);
        let modules = Modules::assign(&memory, &[IMAGE, SECTOR, SINIT]).unwrap();
        assert_eq!((modules.sinit, modules.hypapp), (None, Some(SINIT)), "{offset}: {value:#x}");
    }
}

#[test]
fn a_header_alone_is_sinit_and_less_than_one_is_data() {
    let mut memory = machine();
    memory.put(0x9_0018, &0x20_u32.to_le_bytes());
    let header = PhysRange { length: 128, ..SINIT };
    let modules = Modules::assign(&memory, &[IMAGE, SECTOR, header]).unwrap();
    assert_eq!((modules.sinit, modules.hypapp), (Some(header), None));
    // It ends with the memory that can be read.
    let short = PhysRange { base: 0xf_ffff, length: 1 };
    assert_eq!(Modules::assign(&memory, &[IMAGE, SECTOR, short]).unwrap().hypapp, Some(short));
}

#[test]
fn missing_modules_are_named() {
    let memory = machine();
    assert_eq!(refused(&memory, &[]), ModuleError::NoImage);
    assert_eq!(refused(&memory, &[SINIT]), ModuleError::NoImage);
    assert_eq!(refused(&memory, &[IMAGE]), ModuleError::NoBootSector);
    assert_eq!(refused(&memory, &[IMAGE, SINIT]), ModuleError::NoBootSector);
    assert_eq!(refused(&memory, &[SECTOR, IMAGE]), ModuleError::Foreign);
}

#[test]
fn a_cut_image_is_told_from_a_foreign_one() {
    let memory = machine();
    for length in [56, 0x1000, LOADER_SIZE - 1, LOADER_SIZE, LOADER_SIZE + 64, IMAGE.length - 1] {
        assert_eq!(refused(&memory, &[PhysRange { length, ..IMAGE }, SECTOR]), ModuleError::Truncated);
    }
    for length in [0, 8, 55] {
        assert_eq!(refused(&memory, &[PhysRange { length, ..IMAGE }, SECTOR]), ModuleError::Foreign);
    }
    // 4 GiB is the most that a runtime can say to have.
    for (bytes, error) in [(1_u64 << 32, ModuleError::Truncated), ((1 << 32) + 1, ModuleError::Foreign)] {
        let mut memory = machine();
        memory.put(0x1_0010, &bytes.to_le_bytes());
        assert_eq!(refused(&memory, &[IMAGE, SECTOR]), error);
    }
}

#[test]
fn an_image_may_be_its_headers_alone() {
    let mut memory = machine();
    let length = size_of::<ImageHeader>() as u64;
    memory.put(0x1_0010, &length.to_le_bytes());
    for end in 2..6 {
        memory.put(0x2_0000 + 8 * end, &(RUNTIME_OFFSET + length).to_le_bytes());
    }
    let image = PhysRange { length: LOADER_SIZE + length, ..IMAGE };
    assert_eq!(Modules::assign(&memory, &[image, SECTOR]).unwrap().image.runtime_size, length);
}

#[test]
fn an_altered_header_is_refused() {
    let alterations: [(usize, u64); 6] = [
        (0x1_0000, LOADER_MAGIC + 1),
        (0x1_0008, LOADER_SIZE),
        (0x2_0000, 0),
        (0x2_0010, 0),
        (0x2_0020, RUNTIME_OFFSET + 0x3001),
        (0x2_0028, RUNTIME_OFFSET + 0x1000),
    ];
    for (address, value) in alterations {
        let mut memory = machine();
        memory.put(address, &value.to_le_bytes());
        assert_eq!(refused(&memory, &[IMAGE, SECTOR]), ModuleError::Foreign, "{address:#x}");
    }
}

#[test]
fn boot_sectors_have_bounds_and_a_signature() {
    let mut memory = machine();
    let large = PhysRange { length: BOOT_SECTOR_CAPACITY as u64 + 1, ..SECTOR };
    assert_eq!(refused(&memory, &[IMAGE, large]), ModuleError::BootSectorTooLarge(large.length));
    let largest = PhysRange { length: BOOT_SECTOR_CAPACITY as u64, ..SECTOR };
    assert!(Modules::assign(&memory, &[IMAGE, largest]).is_ok());
    assert_eq!(refused(&memory, &[IMAGE, PhysRange { length: 511, ..SECTOR }]), ModuleError::NotBootable);
    memory.put(0x8_01ff, &[0]);
    assert_eq!(refused(&memory, &[IMAGE, SECTOR]), ModuleError::NotBootable);
}

#[test]
fn a_module_that_cannot_be_read_is_named() {
    let high = PhysRange { base: 1 << 32, length: 0x2_0000 };
    assert_eq!(refused(&machine(), &[high, SECTOR]), ModuleError::Unreadable);
}
