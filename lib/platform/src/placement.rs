//! Where in memory the hypervisor goes: the highest hole below 4 GiB that nothing else needs.

use core::fmt;

use crate::command_line::Options;
use crate::e820::MemoryMap;
use crate::handoff::{PhysRange, REGION_ALIGNMENT, RUNTIME_OFFSET};
use crate::modules::HypervisorImage;
use crate::mtrr_map::TypeMap;
use x86::mtrr::MemoryType;
use x86::paging::PAGE_SIZE;

/// The region ends at or below this address: 32-bit code enters it, and so do 32-bit device addresses.
const REGION_LIMIT: u64 = 1 << 32;
/// The first MiB belongs to the firmware and to the guest's boot sector.
const REGION_FLOOR: u64 = 1 << 20;

/// Why no place was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlacementError {
    /// The sizes in the hypervisor image's header add up to more than 4 GiB.
    TooLarge,
    /// No usable range below 4 GiB holds this many bytes at a 2 MiB boundary.
    NoHole(u64),
    /// Some do, but none is write-back memory by the MTRRs, and hypervisor code would crawl.
    NotWriteBack(u64),
}

/// Least memory for nested tables, whatever the machine.
const NESTED_POOL_LEAST: u64 = 1 << 20;
/// The share of usable memory that it gets, one byte in so many, and the most that this makes.
const NESTED_POOL_SHARE: u64 = 256;
const NESTED_POOL_MOST: u64 = 8 << 20;
/// Least for each CPU.
const NESTED_POOL_PER_CPU: u64 = 64 << 10;

/// Memory for the page tables of the guest's guests, where `options` say nothing else, on a machine with
/// `usable` bytes of memory and `cpus` CPUs.
///
/// Tables of 4 KiB pages take one byte for 512 of the memory that they map, so the share serves guests as large as
/// twice the machine, up to 4 GiB of them; with 2 MiB pages 512 times as much. What is too little is made up by
/// filling tables again.
#[must_use]
pub fn nested_pool_size(options: &Options, usable: u64, cpus: usize) -> u64 {
    let least = NESTED_POOL_LEAST.max(NESTED_POOL_PER_CPU * (cpus as u64 + 1));
    let share = (usable / NESTED_POOL_SHARE).min(NESTED_POOL_MOST).next_multiple_of(PAGE_SIZE);
    match (options.nested, options.nested_pool) {
        (false, _) => 0,
        (true, Some(mib)) => (u64::from(mib) << 20).max(least),
        (true, None) => share.max(least),
    }
}

/// Gives the size in bytes of the region that `image` needs on a machine with `cpus` CPUs, with modules and pools of
/// `more_bytes` besides.
///
/// # Errors
///
/// [`PlacementError::TooLarge`].
pub fn region_size(image: &HypervisorImage, cpus: usize, more_bytes: u64) -> Result<u64, PlacementError> {
    let runtime_end = RUNTIME_OFFSET.checked_add(image.runtime_size);
    let per_cpu = image.header.pool_bytes_per_cpu.checked_mul(cpus as u64);
    let more = more_bytes.checked_next_multiple_of(PAGE_SIZE);
    let size = runtime_end
        .map(|end| end.max(image.header.bss_end))
        .and_then(|size| size.checked_add(image.header.pool_bytes))
        .and_then(|size| size.checked_add(per_cpu?))
        .and_then(|size| size.checked_add(more?))
        .and_then(|size| size.checked_next_multiple_of(REGION_ALIGNMENT));
    size.filter(|&size| size <= REGION_LIMIT).ok_or(PlacementError::TooLarge)
}

/// Finds the highest aligned range of `size` bytes in usable write-back memory below 4 GiB that keeps clear of
/// `taken`. Without `types`, no memory is better than another.
///
/// # Errors
///
/// [`PlacementError::NoHole`] or [`PlacementError::NotWriteBack`].
pub fn choose(
    map: &MemoryMap,
    types: Option<&TypeMap>,
    size: u64,
    taken: &[PhysRange],
) -> Result<PhysRange, PlacementError> {
    let find = |types| map.usable().rev().find_map(|hole| highest_in(hole, types, size, taken));
    match find(types) {
        Some(base) => Ok(PhysRange { base, length: size }),
        None if types.is_some() && find(None).is_some() => Err(PlacementError::NotWriteBack(size)),
        None => Err(PlacementError::NoHole(size)),
    }
}

/// Returns where a hypapp module of `length` bytes goes: the last pages of the region.
#[must_use]
pub fn hypapp_place(region: PhysRange, length: u64) -> PhysRange {
    let top = region.base + region.length;
    PhysRange { base: top - length.next_multiple_of(PAGE_SIZE), length }
}

/// Returns where a pool of `length` bytes, whole pages, goes: below the hypapp module of `hypapp_bytes`.
#[must_use]
pub fn nested_pool_place(region: PhysRange, hypapp_bytes: u64, length: u64) -> PhysRange {
    let end = hypapp_place(region, hypapp_bytes).base;
    if length == 0 { PhysRange::default() } else { PhysRange { base: end - length, length } }
}

fn highest_in(hole: PhysRange, types: Option<&TypeMap>, size: u64, taken: &[PhysRange]) -> Option<u64> {
    let floor = hole.base.max(REGION_FLOOR);
    let mut top = hole.base.saturating_add(hole.length).min(REGION_LIMIT);
    loop {
        let base = top.checked_sub(size)? / REGION_ALIGNMENT * REGION_ALIGNMENT;
        if base < floor {
            return None;
        }
        let other_type = types.and_then(|types| types.first_unlike(MemoryType::WriteBack, base, base + size));
        let taken = taken.iter().filter(|range| overlaps(range, base, size)).map(|range| range.base).min();
        match taken.into_iter().chain(other_type.map(|run| run.start)).min() {
            None => return Some(base),
            Some(obstacle) => top = obstacle,
        }
    }
}

fn overlaps(range: &PhysRange, base: u64, size: u64) -> bool {
    range.length != 0 && range.base < base + size && base < range.base.saturating_add(range.length)
}

impl fmt::Display for PlacementError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge => {
                f.write_str("the hypervisor image asks for more than 4 GiB; copy the image to /boot again")
            }
            Self::NoHole(size) => {
                let mib = size >> 20;
                write!(f, "no free {mib} MiB below 4 GiB; add memory, or load fewer and smaller modules")
            }
            Self::NotWriteBack(size) => {
                let mib = size >> 20;
                write!(
                    f,
                    "no free {mib} MiB below 4 GiB are write-back memory; update the firmware, which sets the MTRRs"
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::handoff::{IMAGE_MAGIC, ImageHeader, MemoryRange, USABLE};
    use crate::mtrr_map::Mtrrs;
    use x86::mtrr::{MtrrCapabilities, MtrrDefaultType, VariableMtrr};

    const MIB: u64 = 1 << 20;

    fn map(ranges: &[(u64, u64)]) -> MemoryMap {
        let record =
            |&(base, end): &(u64, u64)| MemoryRange { base, length: end - base, kind: USABLE, attributes: 1 };
        MemoryMap::sanitise(&ranges.iter().map(record).collect::<Vec<_>>()).unwrap()
    }

    /// All memory but `others`, of base and mask, each uncacheable.
    fn types(others: &[(u64, u64)]) -> TypeMap {
        const VALID: u64 = 1 << 11;
        let mut mtrrs = Mtrrs::disabled(39);
        mtrrs.capabilities = MtrrCapabilities(8);
        mtrrs.default_type = MtrrDefaultType(1 << 11 | MemoryType::WriteBack as u64);
        for (register, &(base, size)) in mtrrs.variable.iter_mut().zip(others) {
            *register = VariableMtrr { base, mask: ((1 << 39) - size) | VALID };
        }
        let mut types = TypeMap::disabled(39);
        types.set(&mtrrs);
        types
    }

    fn write_back() -> TypeMap {
        types(&[])
    }

    fn taken(base: u64, length: u64) -> PhysRange {
        PhysRange { base, length }
    }

    fn image(bss_end: u64, pool_bytes: u64, pool_bytes_per_cpu: u64) -> HypervisorImage {
        let header = ImageHeader {
            magic: IMAGE_MAGIC,
            entry: 0,
            text_end: 0,
            rodata_end: 0,
            data_end: 0,
            bss_end,
            pool_bytes,
            pool_bytes_per_cpu,
        };
        HypervisorImage { file: PhysRange::default(), entry: 0, runtime_size: 0x10_0000, header }
    }

    #[test]
    fn the_size_adds_up_and_rounds_to_2_mib() {
        assert_eq!(region_size(&image(0x18_0000, 0x8_0000, 0), 4, 0), Ok(2 * MIB));
        assert_eq!(region_size(&image(0x18_0000, 0x8_0000, 0), 4, 1), Ok(4 * MIB));
        assert_eq!(region_size(&image(0x18_0000, 0, 0x4_0000), 10, 5 * MIB), Ok(10 * MIB));
        // The file counts where it is longer than the header says.
        assert_eq!(region_size(&image(0, 0xc_0000, 0), 1, 0), Ok(2 * MIB));
        assert_eq!(region_size(&image(0, 0xc_1000, 0), 1, 0), Ok(4 * MIB));
    }

    #[test]
    fn absurd_sizes_are_refused() {
        for absurd in [image(u64::MAX, 1, 0), image(0, 1 << 33, 0), image(0, 0, u64::MAX / 2)] {
            assert_eq!(region_size(&absurd, 3, 0), Err(PlacementError::TooLarge));
        }
        assert_eq!(region_size(&image(0, 0, 0), 1, u64::MAX), Err(PlacementError::TooLarge));
    }

    #[test]
    fn the_highest_hole_below_4_gib_is_taken() {
        let pc = map(&[(0, 0x9_fc00), (MIB, 0x3fff_0000), (1 << 32, 1 << 34)]);
        assert_eq!(choose(&pc, Some(&write_back()), 8 * MIB, &[]), Ok(taken(0x3f60_0000, 8 * MIB)));
        let through = map(&[(MIB, 1 << 34)]);
        assert_eq!(
            choose(&through, Some(&write_back()), 8 * MIB, &[]),
            Ok(taken((1 << 32) - 8 * MIB, 8 * MIB))
        );
    }

    #[test]
    fn modules_are_kept_clear_of() {
        let pc = map(&[(MIB, 64 * MIB)]);
        assert_eq!(
            choose(&pc, Some(&write_back()), 4 * MIB, &[taken(62 * MIB, 1)]),
            Ok(taken(58 * MIB, 4 * MIB))
        );
        assert_eq!(
            choose(&pc, Some(&write_back()), 4 * MIB, &[taken(64 * MIB - 1, 1)]),
            Ok(taken(58 * MIB, 4 * MIB))
        );
        assert_eq!(
            choose(&pc, Some(&write_back()), 4 * MIB, &[taken(64 * MIB - 1, 0)]),
            Ok(taken(60 * MIB, 4 * MIB))
        );
        assert_eq!(
            choose(&pc, Some(&write_back()), 4 * MIB, &[taken(58 * MIB, 2 * MIB)]),
            Ok(taken(60 * MIB, 4 * MIB)),
            "right below it"
        );
        let fragments: Vec<_> = (1..16).map(|i| taken(4 * i * MIB, MIB)).collect();
        assert_eq!(
            choose(&pc, Some(&write_back()), 4 * MIB, &fragments),
            Err(PlacementError::NoHole(4 * MIB))
        );
    }

    #[test]
    fn the_first_mib_and_high_memory_do_not_count() {
        assert_eq!(
            choose(&map(&[(0, 2 * MIB)]), Some(&write_back()), 2 * MIB, &[]),
            Err(PlacementError::NoHole(2 * MIB))
        );
        assert_eq!(
            choose(&map(&[(1 << 32, 1 << 36)]), Some(&write_back()), 2 * MIB, &[]),
            Err(PlacementError::NoHole(2 * MIB))
        );
        assert_eq!(
            choose(&map(&[(MIB, 4 * MIB)]), Some(&write_back()), 2 * MIB, &[]),
            Ok(taken(2 * MIB, 2 * MIB))
        );
        assert_eq!(
            choose(&map(&[(2 * MIB, 4 * MIB)]), Some(&write_back()), 2 * MIB, &[]),
            Ok(taken(2 * MIB, 2 * MIB)),
            "all of a hole"
        );
    }

    #[test]
    fn only_write_back_memory_will_do() {
        let pc = map(&[(MIB, 64 * MIB)]);
        let place = |others: &[_]| choose(&pc, Some(&types(others)), 4 * MIB, &[]);
        assert_eq!(place(&[(48 * MIB, 16 * MIB)]), Ok(taken(44 * MIB, 4 * MIB)));
        assert_eq!(place(&[(62 * MIB, MIB)]), Ok(taken(58 * MIB, 4 * MIB)), "in its midst");
        assert_eq!(place(&[(64 * MIB, 64 * MIB)]), Ok(taken(60 * MIB, 4 * MIB)), "behind it");
        assert_eq!(place(&[(0, 64 * MIB)]), Err(PlacementError::NotWriteBack(4 * MIB)));
        assert_eq!(
            choose(&pc, Some(&TypeMap::disabled(39)), 4 * MIB, &[]),
            Err(PlacementError::NotWriteBack(4 * MIB))
        );
        assert_eq!(
            choose(&pc, Some(&TypeMap::disabled(39)), 64 * MIB, &[]),
            Err(PlacementError::NoHole(64 * MIB))
        );
    }

    #[test]
    fn where_the_mtrrs_are_off_any_memory_will_do() {
        let pc = map(&[(MIB, 64 * MIB)]);
        assert_eq!(choose(&pc, None, 4 * MIB, &[]), Ok(taken(60 * MIB, 4 * MIB)));
        assert_eq!(choose(&pc, None, 64 * MIB, &[]), Err(PlacementError::NoHole(64 * MIB)));
    }

    #[test]
    fn the_hypapp_module_ends_with_the_region() {
        let region = taken(32 * MIB, 8 * MIB);
        assert_eq!(hypapp_place(region, 0x1001), taken(40 * MIB - 0x2000, 0x1001));
    }

    #[test]
    fn the_nested_pool_is_a_share_of_memory_within_bounds() {
        let on = Options { nested: true, ..Options::default() };
        let size = |options: &Options, mib: u64, cpus| nested_pool_size(options, mib * MIB, cpus);
        assert_eq!(size(&on, 64, 1), MIB);
        assert_eq!(size(&on, 1023, 2), (1023 * MIB / 256).next_multiple_of(PAGE_SIZE));
        assert_eq!(size(&on, 1 << 20, 2), 8 * MIB);
        assert_eq!(size(&on, 64, 1023), 64 * MIB);
        assert_eq!(size(&Options { nested_pool: Some(32), ..on }, 1024, 2), 32 * MIB);
        assert_eq!(size(&Options { nested_pool: Some(1), ..on }, 1024, 1023), 64 * MIB);
        assert_eq!(size(&Options { nested: false, nested_pool: Some(32), ..on }, 1024, 2), 0);
    }

    #[test]
    fn the_nested_pool_lies_below_the_hypapp_module() {
        let region = taken(32 * MIB, 8 * MIB);
        assert_eq!(nested_pool_place(region, 0x1001, MIB), taken(39 * MIB - 0x2000, MIB));
        assert_eq!(nested_pool_place(region, 0, MIB), taken(39 * MIB, MIB));
        assert_eq!(nested_pool_place(region, 0x1001, 0), PhysRange::default());
    }

    proptest! {
        #[test]
        fn what_is_chosen_is_aligned_usable_and_free(
            start in 0..64_u64, pages in 0..0x4_0000_u64, size in 1..16_u64,
            blocks in proptest::collection::vec((0..0x400_u64, 0..0x400_u64), 0..6),
        ) {
            let (base, end) = (start * MIB, start * MIB + (pages + 1) * PAGE_SIZE);
            let taken: Vec<_> = blocks.iter().map(|&(at, len)| taken(at * MIB, len * PAGE_SIZE)).collect();
            if let Ok(place) = choose(&map(&[(base, end)]), Some(&write_back()), size * REGION_ALIGNMENT, &taken) {
                prop_assert_eq!(place.base % REGION_ALIGNMENT, 0);
                prop_assert!(place.base >= base && place.base + place.length <= end);
                prop_assert!(!taken.iter().any(|range| overlaps(range, place.base, place.length)));
            }
        }
    }
}
