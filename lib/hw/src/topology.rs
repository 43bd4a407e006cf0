//! How many processors a package has room for.

use crate::Cpuid;

/// Logical processors for which a package has APIC IDs (SDM, "CPUID-CPU Identification", leaves 1FH and 0BH); as many
/// or fewer are there. `None` where the processor does not say.
pub fn processors_of_package(processor: &impl Cpuid) -> Option<u32> {
    const MOST_LEVELS: u32 = 8;
    let highest = processor.cpuid(0, 0).eax;
    let leaf = [0x1f, 0xb].into_iter().find(|&leaf| leaf <= highest && processor.cpuid(leaf, 0).ebx != 0)?;
    let levels = (0..MOST_LEVELS).map(|level| processor.cpuid(leaf, level));
    levels.take_while(|level| level.ecx >> 8 & 0xff != 0).map(|level| level.ebx & 0xffff).max()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::SimCpuid;
    use x86::cpuid::CpuidResult;

    #[test]
    fn a_package_has_as_many_processors_as_its_topmost_level_counts() {
        let level = |ebx, kind: u32| CpuidResult { ebx, ecx: kind << 8, ..CpuidResult::default() };
        let leaves =
            |highest| SimCpuid::default().with(0, 0, CpuidResult { eax: highest, ..CpuidResult::default() });
        let old = leaves(0xb).with(0xb, 0, level(2, 1)).with(0xb, 1, level(8, 2));
        assert_eq!(processors_of_package(&old), Some(8));
        let new =
            leaves(0x1f).with(0x1f, 0, level(2, 1)).with(0x1f, 1, level(8, 2)).with(0x1f, 2, level(16, 5));
        assert_eq!(processors_of_package(&new), Some(16));
        assert_eq!(processors_of_package(&leaves(0x1f).with(0xb, 0, level(4, 1))), Some(4));
        assert_eq!(processors_of_package(&leaves(0xd)), None);
    }

    #[test]
    fn levels_end_at_the_first_without_a_type() {
        // Bits 7:0 of ECX repeat the level, and bits 31:16 of EBX are reserved.
        let level = |ebx, ecx| CpuidResult { ebx, ecx, ..CpuidResult::default() };
        let processor = SimCpuid::default()
            .with(0, 0, CpuidResult { eax: 0xb, ..CpuidResult::default() })
            .with(0xb, 0, level(0xffff_0002, 0x100))
            .with(0xb, 1, level(0xffff_0008, 0x201))
            .with(0xb, 2, level(0x20, 2));
        assert_eq!(processors_of_package(&processor), Some(8));
    }
}
