//! What an earlier boot left in memory.
//!
//! A hypervisor that ends zeroes what is secret, its handoff too. Where a handoff is still there, the machine was reset
//! behind the hypervisor's back (a watchdog, a button, the board), and its memory and that of the programs that it
//! protected lie where they lay. Nothing tells which pages these were, so all of memory is zeroed.

use crate::e820::MemoryMap;
use crate::handoff::{HANDOFF_MAGIC, HANDOFF_OFFSET, PhysRange, REGION_ALIGNMENT};
use crate::physical::ReadPhysical;
use static_assertions::const_assert_eq;

/// Where a region can end.
const REGION_LIMIT: u64 = 1 << 32;
/// Below lie the BIOS's data, and what boot loaders leave for it in its first 64 KiB.
const FLOOR: u64 = 0x1_0000;
/// From here to 1 MiB a network boot ROM or the BIOS's extended data may still be needed.
const CONVENTIONAL_END: u64 = 0x8_0000;
const MIB: u64 = 1 << 20;

/// Gives the address of a hypervisor region that did not end in order; `None` where there is none in usable memory.
pub fn find(memory: &impl ReadPhysical, map: &MemoryMap) -> Option<u64> {
    let mut bases = map.usable().flat_map(|range| {
        let end = (range.base + range.length).min(REGION_LIMIT);
        (range.base.next_multiple_of(REGION_ALIGNMENT)..end).step_by(STEP)
    });
    bases.find(|base| memory.read_u64(base + HANDOFF_OFFSET) == Ok(HANDOFF_MAGIC))
}

const STEP: usize = 0x20_0000;
const_assert_eq!(STEP as u64, REGION_ALIGNMENT);

/// Gives what is to be zeroed, piece by piece, to `zero`: usable memory but what is `kept`.
pub fn pieces(map: &MemoryMap, kept: &[PhysRange], mut zero: impl FnMut(PhysRange)) {
    for range in map.usable() {
        let end = range.base + range.length;
        for (from, to) in [(FLOOR, CONVENTIONAL_END), (MIB, u64::MAX)] {
            around(range.base.max(from), end.min(to), kept, &mut zero);
        }
    }
}

/// Gives `[start, end)` less `kept` to `zero`.
fn around(mut start: u64, end: u64, kept: &[PhysRange], zero: &mut impl FnMut(PhysRange)) {
    while start < end {
        let behind = |range: &PhysRange| range.base.saturating_add(range.length);
        let is_near = |range: &&PhysRange| range.length != 0 && range.base < end && behind(range) > start;
        let next = kept.iter().filter(is_near).min_by_key(|range| range.base);
        let stop = next.map_or(end, |range| range.base.max(start));
        if stop > start {
            zero(PhysRange { base: start, length: stop - start });
        }
        start = next.map_or(end, behind);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handoff::{MemoryRange, RESERVED, USABLE};
    use crate::physical::Unreadable;
    use proptest::prelude::*;

    /// Memory that is zero but for one word.
    struct Memory(u64, u64);

    impl ReadPhysical for Memory {
        fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), Unreadable> {
            bytes.fill(0);
            if address == self.0 {
                bytes.copy_from_slice(&self.1.to_le_bytes());
            }
            Ok(())
        }
    }

    fn map(ranges: &[(u64, u64, u32)]) -> MemoryMap {
        let record = |&(base, length, kind): &_| MemoryRange { base, length, kind, attributes: 1 };
        MemoryMap::sanitise(&ranges.iter().map(record).collect::<Vec<_>>()).unwrap()
    }

    fn machine() -> MemoryMap {
        map(&[
            (0, 0x9_fc00, USABLE),
            (MIB, 0xbff0_0000, USABLE),
            (0xc000_0000, 0x20_0000, RESERVED),
            (1 << 32, 1 << 32, USABLE),
        ])
    }

    #[test]
    fn a_region_is_found_by_its_handoff_wherever_one_can_be() {
        let found = |base| find(&Memory(base + HANDOFF_OFFSET, HANDOFF_MAGIC), &machine());
        for base in [0x20_0000, 0x40_0000, 0xbfe0_0000] {
            assert_eq!(found(base), Some(base));
        }
        for base in [0x30_0000, 0xc000_0000, 0xc020_0000, 1 << 32] {
            assert_eq!(found(base), None, "{base:#x}");
        }
        assert_eq!(find(&Memory(0x20_0000 + HANDOFF_OFFSET, HANDOFF_MAGIC + 1), &machine()), None);
    }

    fn zeroed(map: &MemoryMap, kept: &[(u64, u64)]) -> Vec<(u64, u64)> {
        let kept: Vec<_> = kept.iter().map(|&(base, length)| PhysRange { base, length }).collect();
        let mut zeroed = Vec::new();
        pieces(map, &kept, |range| zeroed.push((range.base, range.base + range.length)));
        zeroed
    }

    #[test]
    fn all_usable_memory_is_zeroed_but_the_bios_s() {
        let all = [(0x1_0000, 0x8_0000), (MIB, 0xc000_0000), (1 << 32, 2 << 32)];
        assert_eq!(zeroed(&machine(), &[]), all);
    }

    #[test]
    fn what_is_kept_is_left_out() {
        let kept = [
            (0x50_0000, 0x1000),
            (MIB, 0x5_0000),
            (0x50_0800, 0x1000),
            (0x60_0000, 0),
            (0xbfff_0000, 1 << 20),
        ];
        let all =
            [(0x1_0000, 0x8_0000), (0x15_0000, 0x50_0000), (0x50_1800, 0xbfff_0000), (1 << 32, 2 << 32)];
        assert_eq!(zeroed(&machine(), &kept), all);
    }

    proptest! {
        #[test]
        fn every_byte_is_zeroed_or_kept(kept in proptest::collection::vec((0..64_u64, 0..9_u64), 0..6)) {
            let map = map(&[(MIB, 64, USABLE)]);
            let kept: Vec<_> = kept.into_iter().map(|(base, length)| (MIB + base, length)).collect();
            let zeroed = zeroed(&map, &kept);
            for at in MIB..MIB + 64 {
                let is_kept = kept.iter().any(|&(base, length)| (base..base + length).contains(&at));
                let times = zeroed.iter().filter(|&&(start, end)| (start..end).contains(&at)).count();
                prop_assert_eq!(times, usize::from(!is_kept), "{:#x}", at);
            }
        }
    }
}
