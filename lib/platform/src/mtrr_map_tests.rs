//! The manual's worked example, the rules one by one, and a model that looks at every register at every page.

use proptest::prelude::*;

use super::{Changes, MemoryType, Mtrrs, TypeMap, TypeRun, VARIABLE_CAPACITY};
use x86::msr::Msr;
use x86::mtrr::{MtrrCapabilities, MtrrDefaultType, VariableMtrr, fixed_slot};

use MemoryType::{
    Uncacheable as UC, WriteBack as WB, WriteCombining as WC, WriteProtected as WP, WriteThrough as WT,
};

const MIB: u64 = 1 << 20;

/// Enabled registers of a processor with 8 pairs.
fn mtrrs(bits: u8, default_type: u64, pairs: &[(u64, u64)]) -> Mtrrs {
    let mut mtrrs = Mtrrs::disabled(bits);
    mtrrs.capabilities = MtrrCapabilities(0x508);
    mtrrs.default_type = MtrrDefaultType(default_type);
    for (register, &(base, mask)) in mtrrs.variable.iter_mut().zip(pairs) {
        *register = VariableMtrr { base, mask };
    }
    mtrrs
}

fn map_of(mtrrs: &Mtrrs) -> TypeMap {
    let mut map = TypeMap::disabled(mtrrs.physical_address_bits);
    map.set(mtrrs);
    map
}

fn run_at(mtrrs: &Mtrrs, address: u64) -> TypeRun {
    map_of(mtrrs).run_at(address)
}

fn changes(old: &Mtrrs, new: &Mtrrs) -> Option<Changes> {
    map_of(old).changes(&map_of(new))
}

/// SDM, "Example Base and Mask Calculations": the example system, on 36 and on 40 address bits.
fn worked_example(bits: u8) -> Mtrrs {
    let high = (1 << bits) - (1 << 32);
    let pair = |base, mask: u64| (base, high | mask);
    let pairs = [
        pair(0x0000_0006, 0xfc00_0800),
        pair(0x0400_0006, 0xfe00_0800),
        pair(0x0600_0006, 0xffc0_0800),
        pair(0x0400_0000, 0xffc0_0800),
        pair(0x00f0_0000, 0xfff0_0800),
        pair(0xa000_0001, 0xff80_0800),
    ];
    mtrrs(bits, 0x800, &pairs)
}

#[test]
fn the_manual_s_example_maps_as_the_manual_says() {
    for bits in [36, 40] {
        let map = worked_example(bits);
        let expected = [
            (0, 15, WB),
            (15, 16, UC),
            (16, 64, WB),
            (64, 68, UC),
            (68, 100, WB),
            (100, 0xa00, UC),
            (0xa00, 0xa08, WC),
            (0xa08, (1 << bits) / MIB, UC),
        ];
        for (start, end, memory_type) in expected {
            for address in [start * MIB, (start + end) / 2 * MIB, end * MIB - 1] {
                let run = run_at(&map, address);
                assert_eq!((run.start / MIB, run.end / MIB, run.memory_type), (start, end, memory_type));
            }
        }
    }
}

#[test]
fn disabled_registers_make_everything_uncacheable() {
    let mut map = worked_example(36);
    map.default_type = MtrrDefaultType(0x406);
    assert_eq!(map.type_at(0), UC);
    assert_eq!(run_at(&map, MIB).end, 1 << 36);
}

#[test]
fn overlaps_follow_the_precedence_rules() {
    let types = [UC, WC, WT, WP, WB];
    for first in types {
        for second in types {
            let mask = 0xf_fff0_0800;
            let map = mtrrs(36, 0x806, &[(first as u64, mask), (second as u64, mask)]);
            let expected = match (first, second) {
                (a, b) if a == b => a,
                (WB, WT) | (WT, WB) => WT,
                _ => UC,
            };
            assert_eq!(map.type_at(0x1000), expected, "{first:?} over {second:?}");
        }
    }
}

#[test]
fn fixed_ranges_win_below_one_mebibyte_only_when_enabled() {
    let mut map = mtrrs(36, 0xc00, &[(6, 0xf_8000_0800)]);
    map.fixed[0] = 0x0606_0606_0606_0606;
    map.fixed[2] = 0x0000_0000_0000_0100;
    map.fixed[10] = 0x0500_0000_0000_0000;
    assert_eq!((map.type_at(0), map.type_at(0x7_ffff)), (WB, WB));
    assert_eq!((map.type_at(0xa_3fff), map.type_at(0xa_4000), map.type_at(0xa_8000)), (UC, WC, UC));
    assert_eq!((map.type_at(0xf_efff), map.type_at(0xf_f000), map.type_at(MIB)), (UC, WP, WB));
    let low = run_at(&map, 0x1_2345);
    assert_eq!((low.start, low.end), (0, 0x8_0000));
    map.default_type = MtrrDefaultType(0x800);
    assert_eq!(map.type_at(0xa_4000), WB);
}

#[test]
fn a_mask_made_for_fewer_address_bits_repeats_its_range() {
    let map = mtrrs(46, 0x800, &[(6, 0xf_8000_0800)]);
    for copy in [0, 1, 2, 1023] {
        assert_eq!(map.type_at(copy << 36), WB);
        assert_eq!(map.type_at((copy << 36) + 0x7fff_ffff), WB);
        assert_eq!(map.type_at((copy << 36) + 0x8000_0000), UC);
    }
}

#[test]
fn fifty_two_bits_and_more_than_a_tebibyte() {
    let map = mtrrs(52, 0x800, &[(0x6, 0xf_fc00_0000_0800), (0x8_0000_0000_0001, 0x8_0000_0000_0800)]);
    assert_eq!((run_at(&map, 1 << 41).start, run_at(&map, 1 << 41).end), (0, 1 << 42));
    assert_eq!((map.type_at(1 << 51), map.type_at((1 << 51) - 1), map.type_at(1 << 42)), (WC, UC, UC));
    assert_eq!(run_at(&map, (1 << 52) - 1).end, 1 << 52);
    assert_eq!(map.type_at(1 << 52), UC);
}

#[test]
fn pairs_that_the_processor_does_not_have_do_not_count() {
    let mut map = mtrrs(36, 0x800, &[]);
    map.variable[8] = VariableMtrr { base: 6, mask: 0xf_8000_0800 };
    assert_eq!(map.type_at(0), UC);
}

#[test]
fn changes_name_only_what_changed() {
    let old = worked_example(36);
    assert_eq!(changes(&old, &old), Some([].into_iter().collect()));
    let mut new = old.clone();
    new.variable[5].base = 0xa000_0006;
    new.variable[4] = VariableMtrr::default();
    let ranges = [(15 * MIB, 16 * MIB), (0xa000_0000, 0xa080_0000)].into_iter().collect();
    assert_eq!(changes(&old, &new), Some(ranges));
}

#[test]
fn as_many_ranges_as_registers_make_are_told_apart() {
    let pairs = |memory_type: MemoryType, offset: u64| -> Vec<_> {
        (0..40).map(|pair| ((MIB + 0x4000 * pair + offset) | memory_type as u64, 0xf_ffff_f800)).collect()
    };
    let many = |default_type: MemoryType, fixed: [u64; 11], pairs: &[_]| {
        let mut mtrrs = mtrrs(36, 0xc00 | default_type as u64, pairs);
        mtrrs.capabilities = MtrrCapabilities(0x528);
        mtrrs.fixed = fixed;
        mtrrs
    };
    // Neighbours differ in both, and both differ everywhere.
    let old = many(UC, [0x0600_0600_0600_0600; 11], &pairs(WB, 0));
    let new = many(WP, [0x0401_0401_0401_0401; 11], &pairs(WT, 0x2000));
    assert_eq!(changes(&old, &new), Some([(0, 1 << 36)].into_iter().collect()));
}

#[test]
fn behind_the_last_address_all_is_uncacheable() {
    let map = mtrrs(36, 0x806, &[]);
    let behind = TypeRun { start: 1 << 36, end: u64::MAX, memory_type: UC };
    assert_eq!([1 << 36, u64::MAX].map(|address| run_at(&map, address)), [behind; 2]);
    assert_eq!(run_at(&map, (1 << 36) - 1), TypeRun { start: 0, end: 1 << 36, memory_type: WB });
}

#[test]
fn registers_are_read_as_far_as_the_processor_has_them() {
    let read = |capabilities| {
        Mtrrs::of_processor(36, |msr| match msr {
            Msr::IA32_MTRRCAP => capabilities,
            msr => u64::from(msr.0),
        })
    };
    let all = read(0x502);
    assert_eq!(all.default_type, MtrrDefaultType(0x2ff));
    assert_eq!(all.fixed, [0x250, 0x258, 0x259, 0x268, 0x269, 0x26a, 0x26b, 0x26c, 0x26d, 0x26e, 0x26f]);
    let pair = |base, mask| VariableMtrr { base, mask };
    assert_eq!(all.variable[..3], [pair(0x200, 0x201), pair(0x202, 0x203), pair(0, 0)]);
    assert_eq!(read(0x402).fixed, [0; 11]);
}

#[test]
fn garbage_masks_are_answered_in_bounded_time() {
    let old = mtrrs(52, 0x800, &[]);
    let new = mtrrs(52, 0x800, &[(6, 0x1800)]);
    assert_eq!(new.type_at(0x2000), WB);
    assert_eq!(changes(&old, &new), None);
    assert_eq!(run_at(&new, 0x2000), TypeRun { start: 0x2000, end: 0x3000, memory_type: WB });
    assert_eq!(run_at(&new, 0x3000).memory_type, UC);
    let same = mtrrs(52, 0x806, &[(6, 0x1800)]);
    assert_eq!(run_at(&same, 0x3000).memory_type, WB);
    assert_eq!(changes(&same, &same), None);
}

/// The rules read literally, for one address.
fn model(map: &Mtrrs, address: u64) -> MemoryType {
    if !map.default_type.is_enabled() {
        return UC;
    }
    if let Some((index, byte)) = fixed_slot(address).filter(|_| map.default_type.is_fixed_enabled()) {
        return MemoryType::from_encoding(map.fixed[index].to_le_bytes()[byte]).unwrap_or(UC);
    }
    let bits = !0xfff & ((1 << map.physical_address_bits) - 1);
    let mut found: Vec<u8> = map.variable[..map.capabilities.variable_count()]
        .iter()
        .filter(|r| r.is_valid() && address & r.mask & bits == r.base & r.mask & bits)
        .map(|r| r.type_encoding())
        .collect();
    found.sort_unstable();
    found.dedup();
    match found[..] {
        [] => MemoryType::from_encoding(map.default_type.type_encoding()).unwrap_or(UC),
        [one] => MemoryType::from_encoding(one).unwrap_or(UC),
        [4, 6] => WT,
        _ => UC,
    }
}

prop_compose! {
    /// Small registers, so that every page can be looked at: 22 address bits, masks with and without holes.
    fn any_mtrrs()(
        pairs in prop::collection::vec((any::<u64>(), any::<u64>(), 0_u32..12, any::<bool>()), 0..6),
        types in prop::collection::vec(prop::sample::select(vec![0_u8, 1, 4, 5, 6]), 12),
        fixed in prop::collection::vec(prop::sample::select(vec![0_u64, 1, 4, 5, 6]), 88),
        enables in 0_u64..4,
    ) -> Mtrrs {
        let mut map = mtrrs(22, enables << 10 | u64::from(types[0]), &[]);
        for (index, (base, mask, shift, has_holes)) in pairs.into_iter().enumerate() {
            let mask = if has_holes { mask } else { !0 << (11 + shift) };
            let base = base & 0x3f_f000 | u64::from(types[1 + index]);
            map.variable[index] = VariableMtrr { base, mask: mask & 0x3f_f000 | 0x800 };
        }
        for (index, byte) in fixed.into_iter().enumerate() {
            map.fixed[index / 8] |= byte << (8 * (index % 8));
        }
        map
    }
}

proptest! {
    #[test]
    fn every_page_has_the_model_s_type_and_runs_are_uniform(map in any_mtrrs(), at in 0_u64..1 << 22) {
        for page in (0..1_u64 << 22).step_by(4096) {
            prop_assert_eq!(map.type_at(page), model(&map, page));
        }
        let run = run_at(&map, at);
        prop_assert!((run.start..run.end).contains(&at));
        for page in (run.start..run.end).step_by(4096) {
            prop_assert_eq!(run.memory_type, model(&map, page));
        }
        if !map_of(&map).list.is_empty() {
            prop_assert!(run.start == 0 || model(&map, run.start - 4096) != run.memory_type);
            prop_assert!(run.end == 1 << 22 || model(&map, run.end) != run.memory_type);
        }
    }

    #[test]
    fn changes_are_exactly_the_pages_that_differ(old in any_mtrrs(), new in any_mtrrs()) {
        let changes = changes(&old, &new);
        for page in (0..1_u64 << 22).step_by(4096) {
            let differs = model(&old, page) != model(&new, page);
            if let Some(ranges) = &changes {
                prop_assert_eq!(ranges.iter().any(|r| (r.0..r.1).contains(&page)), differs);
            }
        }
    }
}

static_assertions::const_assert_eq!(VARIABLE_CAPACITY, 0x250 / 2 - 0x200 / 2);
