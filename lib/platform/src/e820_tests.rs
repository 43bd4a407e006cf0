//! Tests of the memory map.

use proptest::prelude::*;

use super::*;

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;

fn range(base: u64, end: u64, kind: u32) -> MemoryRange {
    MemoryRange { base, length: end - base, kind, attributes: 1 }
}

/// A PC with 5 GiB of memory, as its BIOS tells it.
fn machine() -> Vec<MemoryRange> {
    vec![
        range(0, 0x9_fc00, USABLE),
        range(0x9_fc00, 0xa_0000, RESERVED),
        range(0xf_0000, 0x10_0000, RESERVED),
        range(0x10_0000, 0xbffe_0000, USABLE),
        range(0xbffe_0000, 0xc000_0000, 3),
        range(0xfffc_0000, 4 * GIB, RESERVED),
        range(4 * GIB, 6 * GIB, USABLE),
    ]
}

fn hidden(hole: MemoryRange) -> Vec<MemoryRange> {
    let mut map = MemoryMap::sanitise(&machine()).unwrap();
    map.hide(PhysRange { base: hole.base, length: hole.length }).unwrap();
    map.ranges().to_vec()
}

/// The kind of the byte at `address` by the rule that the module documents; 0 where nothing covers it.
fn kind_at(ranges: &[MemoryRange], address: u64) -> u32 {
    let covering = ranges.iter().filter(|r| r.base <= address && address - r.base < r.length);
    covering.map(|r| r.kind).max().unwrap_or(0)
}

#[test]
fn a_sane_map_stays_as_it_is() {
    assert_eq!(MemoryMap::sanitise(&machine()).unwrap().ranges(), machine());
}

#[test]
fn order_empty_records_and_neighbours_do_not_matter() {
    let mut records = machine();
    records.reverse();
    records.insert(2, range(0x5000, 0x5000, 5));
    records.push(range(0xbff0_0000, 0xbffe_0000, USABLE));
    assert_eq!(MemoryMap::sanitise(&records).unwrap().ranges(), machine());
    let halves = [range(MIB, 2 * MIB, USABLE), range(2 * MIB, 3 * MIB, USABLE)];
    assert_eq!(MemoryMap::sanitise(&halves).unwrap().ranges(), [range(MIB, 3 * MIB, USABLE)]);
}

#[test]
fn the_stricter_of_two_overlapping_records_wins() {
    let records = [range(0, 16 * MIB, USABLE), range(4 * MIB, 6 * MIB, 4), range(5 * MIB, 8 * MIB, RESERVED)];
    let expected = [
        range(0, 4 * MIB, USABLE),
        range(4 * MIB, 6 * MIB, 4),
        range(6 * MIB, 8 * MIB, RESERVED),
        range(8 * MIB, 16 * MIB, USABLE),
    ];
    assert_eq!(MemoryMap::sanitise(&records).unwrap().ranges(), expected);
}

#[test]
fn absurd_maps_are_refused_by_name() {
    assert_eq!(MemoryMap::sanitise(&[]), Err(MemoryMapError::NoMemory));
    assert_eq!(MemoryMap::sanitise(&[range(0, GIB, RESERVED)]), Err(MemoryMapError::NoMemory));
    let covered = [range(0, GIB, USABLE), range(0, 2 * GIB, RESERVED)];
    assert_eq!(MemoryMap::sanitise(&covered), Err(MemoryMapError::NoMemory));
    let wraps = MemoryRange { base: GIB, length: u64::MAX, kind: USABLE, attributes: 1 };
    assert_eq!(MemoryMap::sanitise(&[wraps]), Err(MemoryMapError::BeyondPhysical(wraps)));
    let beyond = range(PHYSICAL_LIMIT - 1, PHYSICAL_LIMIT + 1, RESERVED);
    assert_eq!(MemoryMap::sanitise(&[beyond]), Err(MemoryMapError::BeyondPhysical(beyond)));
    let many: Vec<_> =
        (0..=MEMORY_MAP_CAPACITY as u64).map(|i| range(i * MIB, i * MIB + 1, USABLE)).collect();
    assert_eq!(MemoryMap::sanitise(&many), Err(MemoryMapError::TooMany));
    assert!(MemoryMap::sanitise(&many[1..]).is_ok());
    // 129 stripes of usable memory on one reserved record make more ranges than records.
    let mut stripes: Vec<_> = (0..129).map(|i| range(2 * i * MIB, (2 * i + 1) * MIB, RESERVED)).collect();
    stripes.push(range(0, 258 * MIB, USABLE));
    assert_eq!(MemoryMap::sanitise(&stripes), Err(MemoryMapError::TooMany));
}

#[test]
fn hiding_splits_a_range() {
    let after = hidden(range(0x1000_0000, 0x1100_0000, 0));
    assert_eq!(after.len(), 9);
    assert_eq!(after[3], range(0x10_0000, 0x1000_0000, USABLE));
    assert_eq!(after[4], range(0x1000_0000, 0x1100_0000, RESERVED));
    assert_eq!(after[5], range(0x1100_0000, 0xbffe_0000, USABLE));
}

#[test]
fn hiding_trims_a_range_at_either_end() {
    let after = hidden(range(0xbf00_0000, 0xbffe_0000, 0));
    assert_eq!(
        after[3..5],
        [range(0x10_0000, 0xbf00_0000, USABLE), range(0xbf00_0000, 0xbffe_0000, RESERVED)]
    );
    // The reserved range in front takes the hole in.
    let after = hidden(range(0x10_0000, 0x20_0000, 0));
    assert_eq!(after[2..4], [range(0xf_0000, 0x20_0000, RESERVED), range(0x20_0000, 0xbffe_0000, USABLE)]);
}

#[test]
fn hiding_covers_a_range_exactly_or_wholly() {
    let exact = hidden(range(4 * GIB, 6 * GIB, 0));
    assert_eq!(exact[5..], [range(0xfffc_0000, 6 * GIB, RESERVED)]);
    let whole = hidden(range(0xc000_0000, 7 * GIB, 0));
    assert_eq!(whole, exact);
}

#[test]
fn several_holes_above_and_below_4_gib() {
    let mut map = MemoryMap::sanitise(&machine()).unwrap();
    let holes = [range(16 * MIB, 32 * MIB, RESERVED), range(64 * MIB, 66 * MIB, RESERVED)];
    let high = range(5 * GIB, 5 * GIB + 2 * MIB, RESERVED);
    for hole in holes.iter().chain([&high]) {
        map.hide(PhysRange { base: hole.base, length: hole.length }).unwrap();
        assert!(map.ranges().contains(hole));
    }
    assert_eq!(map.ranges().len(), machine().len() + 6);
}

#[test]
fn a_full_map_refuses_a_split_and_stays_whole() {
    let records: Vec<_> =
        (0..MEMORY_MAP_CAPACITY as u64).map(|i| range(2 * i * MIB, (2 * i + 1) * MIB, USABLE)).collect();
    let mut map = MemoryMap::sanitise(&records).unwrap();
    assert_eq!(map.hide(PhysRange { base: 0x1000, length: 0x1000 }), Err(MemoryMapError::TooMany));
    assert_eq!(map.ranges(), records);
}

prop_compose! {
    fn any_range()(base in 0..64_u64, length in 0..16_u64, kind in 1..6_u32) -> MemoryRange {
        range(base * 0x1000, (base + length) * 0x1000, kind)
    }
}

proptest! {
    #[test]
    fn sanitising_keeps_every_byte_and_hiding_only_reserves(
        records in proptest::collection::vec(any_range(), 1..24), hole in any_range(),
    ) {
        let Ok(mut map) = MemoryMap::sanitise(&records) else { return Ok(()) };
        for page in 0..80 {
            prop_assert_eq!(kind_at(map.ranges(), page * 0x1000), kind_at(&records, page * 0x1000));
        }
        prop_assert!(map.ranges().windows(2).all(|pair| pair[0].base + pair[0].length <= pair[1].base));
        map.hide(PhysRange { base: hole.base, length: hole.length }).unwrap();
        for page in 0..80 {
            let (address, before) = (page * 0x1000, kind_at(&records, page * 0x1000));
            let inside = address >= hole.base && address < hole.base + hole.length;
            let expected = if inside && before == USABLE { RESERVED } else { before };
            prop_assert_eq!(kind_at(map.ranges(), address), expected);
        }
    }
}

#[test]
fn each_message_says_what_is_wrong_and_what_to_do() {
    let record = MemoryRange { base: 0x1000, length: u64::MAX, kind: USABLE, attributes: 1 };
    for (error, words) in [
        (MemoryMapError::NoMemory, "no usable memory"),
        (MemoryMapError::TooMany, "more than 256 ranges"),
        (MemoryMapError::BeyondPhysical(record), "base=0x1000 length=0xffffffffffffffff"),
    ] {
        let text = error.to_string();
        assert!(
            text.contains(words)
                && text
                    .ends_with("; update the firmware, and load no program before GRUB that edits the map"),
            "{text}"
        );
    }
}
