//! The launch without measurement: the secure loader is copied to its place and entered just as a
//! measured launch would (Intel TXT MLE Developer's Guide, "MLE Launch").

use super::{Ground, Parts};
use crate::handoff::{HANDOFF_OFFSET, LOADER_SIZE, PhysRange, RUNTIME_OFFSET};

/// Copies image and hypapp module into the region and clears what lies between secure loader and runtime.
///
/// The runtime's zeroed data is the secure loader's business, which may not rely on this code.
pub(super) fn place(ground: &mut impl Ground, parts: &Parts) {
    let (file, base) = (parts.image.file.base, parts.region.base);
    let loader = (file, base, LOADER_SIZE);
    let runtime = (file + LOADER_SIZE, base + RUNTIME_OFFSET, parts.image.runtime_size);
    // The file may lie across its destination: no part is written over before it was read.
    let pieces = if base >= file { [runtime, loader] } else { [loader, runtime] };
    for (from, to, length) in pieces {
        ground.copy(from, to, length);
    }
    ground.zero(PhysRange { base: base + HANDOFF_OFFSET, length: RUNTIME_OFFSET - HANDOFF_OFFSET });
    if let Some(hypapp) = parts.hypapp {
        ground.copy(hypapp.file.base, hypapp.place.base, hypapp.place.length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handoff::ImageHeader;
    use crate::launch::{Entry, HypappModule, Launch};
    use crate::modules::HypervisorImage;
    use proptest::prelude::*;

    struct Fixture(Vec<u8>);

    fn index(address: u64) -> usize {
        usize::try_from(address).unwrap()
    }

    impl Ground for Fixture {
        type Left = Entry;

        fn copy(&mut self, from: u64, to: u64, length: u64) {
            self.0.copy_within(index(from)..index(from + length), index(to));
        }

        fn zero(&mut self, range: PhysRange) {
            self.0[index(range.base)..index(range.base + range.length)].fill(0);
        }

        fn jump(&mut self, entry: Entry) -> Entry {
            entry
        }
    }

    const RUNTIME_SIZE: u64 = 0x5_1000;
    const REGION: PhysRange = PhysRange { base: 0x20_0000, length: 0x20_0000 };
    const HYPAPP: HypappModule = HypappModule {
        file: PhysRange { base: 0x10_0000, length: 0x1234 },
        place: PhysRange { base: 0x3f_e000, length: 0x1234 },
    };

    /// Runs the launch with the image file at `file`; gives memory before and after.
    fn launched(file: u64) -> (Vec<u8>, Vec<u8>) {
        let header = ImageHeader {
            magic: 0,
            entry: 0,
            text_end: 0,
            rodata_end: 0,
            data_end: 0,
            bss_end: 0,
            pool_bytes: 0,
            pool_bytes_per_cpu: 0,
        };
        let file = PhysRange { base: file, length: LOADER_SIZE + RUNTIME_SIZE };
        let image = HypervisorImage { file, entry: 0x40, runtime_size: RUNTIME_SIZE, header };
        let before: Vec<u8> =
            (0..0x60_0000_u32).map(|i| (i.wrapping_mul(0x9e37_79b9) >> 24) as u8 | 1).collect();
        let mut machine = Fixture(before.clone());
        let parts = Parts { region: REGION, image, hypapp: Some(HYPAPP) };
        let entry = Launch::of_this_boot().place(&mut machine, &parts).enter(&mut machine);
        assert_eq!(entry.address(), 0x20_0040);
        (before, machine.0)
    }

    fn same(before: &[u8], from: u64, after: &[u8], to: u64, length: u64) -> bool {
        before[index(from)..index(from + length)] == after[index(to)..index(to + length)]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn every_part_arrives_wherever_the_file_lies(
            file in prop_oneof![0x11_0000..0x60_0000 - LOADER_SIZE - RUNTIME_SIZE, 0x1f_0000..0x25_0000_u64],
        ) {
            let (before, after) = launched(file);
            let base = REGION.base;
            prop_assert!(same(&before, file, &after, base, LOADER_SIZE));
            prop_assert!(same(&before, file + LOADER_SIZE, &after, base + RUNTIME_OFFSET, RUNTIME_SIZE));
            prop_assert!(same(&before, HYPAPP.file.base, &after, HYPAPP.place.base, HYPAPP.place.length));
            let between = index(base + HANDOFF_OFFSET)..index(base + RUNTIME_OFFSET);
            prop_assert!(after[between].iter().all(|&byte| byte == 0));
            prop_assert!(same(&before, 0, &after, 0, base), "memory below the region was written");
            let end = base + REGION.length;
            prop_assert!(same(&before, end, &after, end, 0x60_0000 - end), "memory above the region was written");
        }
    }
}
