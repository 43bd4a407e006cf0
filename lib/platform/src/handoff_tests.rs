//! Each rule of the handoff, on both sides of its border.

use super::*;

const MIB: u64 = 1 << 20;
const BASE: u64 = 0x3c00_0000;
const LENGTH: u64 = 8 * MIB;
const END: u64 = BASE + LENGTH;

/// A handoff that passes but for what `edit` does to it, and what the check says.
fn check(edit: impl FnOnce(&mut Handoff)) -> Result<(), HandoffError> {
    let mut handoff = Box::new(Handoff::EMPTY);
    handoff.region = PhysRange { base: BASE, length: LENGTH };
    handoff.memory_map[0] = MemoryRange { base: 0, length: BASE, kind: USABLE, attributes: 1 };
    handoff.memory_map[1] = MemoryRange { base: BASE, length: LENGTH, kind: RESERVED, attributes: 1 };
    handoff.memory_map[2] = MemoryRange { base: END, length: MIB, kind: USABLE, attributes: 1 };
    (handoff.memory_map_count, handoff.cpu_count, handoff.boot_sector_size) = (3, 1, 512);
    edit(&mut handoff);
    handoff.check()
}

/// The same in another region, which no memory map speaks of.
fn check_region(base: u64, length: u64) -> Result<(), HandoffError> {
    check(|handoff| {
        handoff.region = PhysRange { base, length };
        handoff.memory_map_count = 1;
        handoff.memory_map[0].kind = RESERVED;
    })
}

fn range(base: u64, length: u64) -> PhysRange {
    PhysRange { base, length }
}

#[test]
fn a_sound_handoff_passes() {
    assert_eq!(check(|_| ()), Ok(()));
}

#[test]
fn another_build_s_handoff_is_refused_by_any_of_three() {
    assert_eq!(check(|handoff| handoff.magic ^= 1), Err(HandoffError::Version));
    assert_eq!(check(|handoff| handoff.version += 1), Err(HandoffError::Version));
    assert_eq!(check(|handoff| handoff.size -= 1), Err(HandoffError::Version));
}

#[test]
fn a_region_is_aligned_below_4_gib_and_has_room_for_a_runtime() {
    let largest = (1 << 32) - 2 * MIB;
    for (base, length) in [(2 * MIB, 2 * MIB), (largest, 2 * MIB)] {
        assert_eq!(check_region(base, length), Ok(()), "{base:#x} {length:#x}");
    }
    for (base, length) in [
        (BASE, 0),
        (BASE, RUNTIME_OFFSET),
        (BASE + MIB, 2 * MIB),
        (BASE, 3 * MIB),
        (largest, 4 * MIB),
        (1 << 32, 2 * MIB),
        (u64::MAX - 2 * MIB + 1, 2 * MIB),
        (2 * MIB, u64::MAX - 2 * MIB + 1),
    ] {
        assert_eq!(check_region(base, length), Err(HandoffError::Region), "{base:#x} {length:#x}");
    }
}

#[test]
fn counts_are_within_what_there_is_room_for() {
    let full = |handoff: &mut Handoff| {
        handoff.memory_map[3..].fill(MemoryRange { base: 1 << 40, length: 1, kind: RESERVED, attributes: 1 });
        (handoff.memory_map_count, handoff.cpu_count) = (256, 1024);
        handoff.boot_sector_size = 16 << 10;
    };
    assert_eq!(check(full), Ok(()));
    assert_eq!(check(|handoff| (full(handoff), handoff.memory_map_count += 1).1), Err(HandoffError::Count));
    assert_eq!(check(|handoff| (full(handoff), handoff.cpu_count += 1).1), Err(HandoffError::Count));
    assert_eq!(check(|handoff| (full(handoff), handoff.boot_sector_size += 1).1), Err(HandoffError::Count));
    assert_eq!(check(|handoff| handoff.memory_map_count = 0), Err(HandoffError::Count));
    assert_eq!(check(|handoff| handoff.cpu_count = 0), Err(HandoffError::Count));
    assert_eq!(check(|handoff| handoff.boot_sector_size = 0), Ok(()));
}

#[test]
fn no_byte_of_the_region_is_usable() {
    let hidden = Err(HandoffError::RegionNotHidden);
    assert_eq!(check(|handoff| handoff.memory_map[0].length += 1), hidden);
    assert_eq!(check(|handoff| handoff.memory_map[2].base -= 1), hidden);
    assert_eq!(check(|handoff| handoff.memory_map[1].kind = USABLE), hidden);
    assert_eq!(check(|handoff| handoff.memory_map[0].length = u64::MAX), hidden);
    // An unused entry says nothing.
    assert_eq!(check(|handoff| handoff.memory_map[3] = handoff.memory_map[0]), Ok(()));
}

#[test]
fn modules_lie_where_they_have_to() {
    let hypapp = |module| check(|handoff| handoff.hypapp_module = module);
    for module in [range(BASE, LENGTH), range(END - 1, 1), range(0, 0)] {
        assert_eq!(hypapp(module), Ok(()), "{module:x?}");
    }
    for module in [range(BASE - 1, 2), range(END - 1, 2), range(END, 1), range(END - 1, u64::MAX)] {
        assert_eq!(hypapp(module), Err(HandoffError::Module), "{module:x?}");
    }
    let sinit = |module| check(|handoff| handoff.sinit_module = module);
    for module in [range(BASE - 5, 5), range(END, 5), range(BASE, 0)] {
        assert_eq!(sinit(module), Ok(()), "{module:x?}");
    }
    for module in [range(BASE - 5, 6), range(END - 1, 5), range(BASE - 5, u64::MAX)] {
        assert_eq!(sinit(module), Err(HandoffError::Module), "{module:x?}");
    }
}

#[test]
fn a_nested_pool_is_pages_below_the_module() {
    let pool = |pool, module| check(|handoff| (handoff.nested_pool, handoff.hypapp_module) = (pool, module));
    let (module, none) = (range(END - MIB, 5), PhysRange::default());
    assert_eq!(pool(range(END - 2 * MIB, MIB), module), Ok(()));
    assert_eq!(pool(range(END - MIB, MIB), none), Ok(()));
    for (place, module) in [
        (range(END - 2 * MIB, MIB + 4096), module),
        (range(END - 2 * MIB + 1, 4096), module),
        (range(END - 2 * MIB, 5), module),
        (range(END - MIB, MIB + 4096), none),
        (range(BASE - 4096, 4096), none),
        (range(BASE, u64::MAX - 4095), none),
    ] {
        assert_eq!(pool(place, module), Err(HandoffError::NestedPool), "{place:x?}");
    }
}

#[test]
fn the_runtimes_own_memory_ends_where_the_first_other_begins() {
    let mut handoff = Box::new(Handoff::EMPTY);
    handoff.region = range(BASE, LENGTH);
    assert_eq!(handoff.own_end(), END);
    handoff.hypapp_module = range(END - 4096, 1);
    assert_eq!(handoff.own_end(), END - 4096);
    handoff.nested_pool = range(END - MIB, 4096);
    assert_eq!(handoff.own_end(), END - MIB);
}

#[test]
fn lists_are_what_their_counts_say() {
    let mut handoff = Box::new(Handoff::EMPTY);
    (handoff.memory_map_count, handoff.cpu_count, handoff.boot_sector_size) = (2, 3, 4);
    handoff.command_line[..5].copy_from_slice(b"a b\0c");
    let lengths = [handoff.memory_map().len(), handoff.apic_ids().len(), handoff.boot_sector().len()];
    assert_eq!((lengths, handoff.command_line()), ([2, 3, 4], "a b"));
    (handoff.memory_map_count, handoff.cpu_count, handoff.boot_sector_size) = (u32::MAX, u32::MAX, u32::MAX);
    let lengths = [handoff.memory_map().len(), handoff.apic_ids().len(), handoff.boot_sector().len()];
    assert_eq!(lengths, [256, 1024, 16 << 10]);
    handoff.command_line[1] = 0xff;
    assert_eq!(handoff.command_line(), "a");
}

#[test]
fn registers_of_remapping_units_are_pages_apart_from_the_region() {
    let unit = |base, length| check(|handoff| handoff.remapping_units[0] = range(base, length));
    for (base, length) in [(0xfed9_0000, 4096), (BASE - 4096, 4096), (END, 8192), (1 << 40, 4096)] {
        assert_eq!(unit(base, length), Ok(()), "{base:#x} {length:#x}");
    }
    for (base, length) in
        [(0xfed9_0800, 4096), (0xfed9_0000, 2048), (BASE, 4096), (END - 4096, 4096), (u64::MAX - 4095, 4096)]
    {
        assert_eq!(unit(base, length), Err(HandoffError::RemappingUnit), "{base:#x} {length:#x}");
    }
    let second = check(|handoff| {
        handoff.remapping_units[0] = range(0xfed9_0000, 4096);
        handoff.remapping_units[1] = range(BASE, 4096);
    });
    assert_eq!(second, Err(HandoffError::RemappingUnit));
    // None behind the first that is empty.
    let behind = check(|handoff| handoff.remapping_units[1] = range(BASE, 4096));
    assert_eq!(behind, Ok(()));
}
