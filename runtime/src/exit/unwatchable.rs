//! MSRs that no hypapp can watch.

use super::msr;
use core::ops::RangeInclusive;
use x86::msr::Msr;

/// Returns the first of these MSRs that no hypapp can watch: an entry of a hypervisor in the guest loads it for its guest
/// without a WRMSR, and an exit saves it, so that a watch would see some of its changes alone.
#[must_use]
pub fn unwatchable(msrs: &[RangeInclusive<u32>]) -> Option<Msr> {
    msrs.iter().cloned().flatten().map(Msr).find(|&msr| msr::is_switched(msr))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_entries_load_for_a_guest_is_nothing_to_watch() {
        for msr in [0xc000_0080, 0xc000_0100, 0xc000_0101, 0x277, 0x1d9, 0x174, 0x175, 0x176] {
            assert_eq!(unwatchable(&[0x10..=0x10, msr..=msr]), Some(Msr(msr)), "{msr:#x}");
        }
        assert_eq!(unwatchable(&[0x170..=0x180]), Some(Msr(0x174)));
        // MTRRs, counters, IA32_KERNEL_GS_BASE, and what the processor has not.
        let all = [
            0x200..=0x20f,
            0x2ff..=0x2ff,
            0x38f..=0x38f,
            0xc000_0102..=0xc000_0102,
            0x4000_0000..=0x4000_00ff,
        ];
        assert_eq!(unwatchable(&all), None);
        assert_eq!(unwatchable(&[]), None);
    }
}
