//! VMX capability MSRs (SDM, appendix "VMX Capability Reporting Facility").

use super::interruption::ActivityState;
use bitflags::bitflags;

/// IA32_VMX_BASIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VmxBasic(pub u64);

impl VmxBasic {
    /// VMCS revision identifier.
    #[must_use]
    pub const fn revision(self) -> u32 {
        (self.0 & 0x7fff_ffff) as u32
    }

    /// Returns whether the TRUE capability MSRs exist.
    #[must_use]
    pub const fn has_true_controls(self) -> bool {
        self.0 >> 55 & 1 == 1
    }

    /// Any hardware exception can be injected with or without an error code.
    #[must_use]
    pub const fn has_free_error_codes(self) -> bool {
        self.0 >> 56 & 1 == 1
    }
}

/// IA32_VMX_MISC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VmxMisc(pub u64);

impl VmxMisc {
    /// Returns whether a VM entry can leave the guest in this activity state.
    #[must_use]
    pub const fn has_activity(self, state: ActivityState) -> bool {
        match state.0 {
            0 => true,
            number @ 1..=3 => self.0 >> (5 + number) & 1 == 1,
            _ => false,
        }
    }

    /// Returns the number of CR3-target values.
    #[must_use]
    pub const fn cr3_target_count(self) -> u32 {
        (self.0 >> 16 & 0x1ff) as u32
    }

    /// Most entries that an MSR area should have.
    #[must_use]
    pub const fn msr_area_entries(self) -> u32 {
        512 * (1 + (self.0 >> 25 & 7) as u32)
    }

    /// VMWRITE reaches the fields of VM-exit information.
    #[must_use]
    pub const fn writes_exit_information(self) -> bool {
        self.0 >> 29 & 1 == 1
    }

    /// Software interrupts and exceptions can be injected with an instruction length of 0.
    #[must_use]
    pub const fn allows_length_0(self) -> bool {
        self.0 >> 30 & 1 == 1
    }
}

/// One capability MSR of a control word: low half the allowed 0-settings, high half the allowed
/// 1-settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowed(pub u64);

/// Controls that are wanted but that the processor does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MissingControls(pub u32);

impl Allowed {
    /// Returns the bits that must be 1.
    #[must_use]
    pub const fn must_be_one(self) -> u32 {
        (self.0 & 0xffff_ffff) as u32
    }

    /// Returns the bits that may be 1.
    #[must_use]
    pub const fn may_be_one(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Returns the control word for `required` bits, and those of the `optional` bits that the processor has.
    ///
    /// # Errors
    ///
    /// The required bits that the processor does not have.
    pub const fn adjust(self, required: u32, optional: u32) -> Result<u32, MissingControls> {
        let missing = required & !self.may_be_one();
        if missing != 0 {
            return Err(MissingControls(missing));
        }
        Ok((required | optional & self.may_be_one()) | self.must_be_one())
    }

    /// A VM entry accepts the control word.
    #[must_use]
    pub const fn allows(self, word: u32) -> bool {
        word & !self.may_be_one() == 0 && self.must_be_one() & !word == 0
    }
}

bitflags! {
    /// IA32_VMX_EPT_VPID_CAP.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct EptVpidCapability: u64 {
        /// Execute-only translations.
        const EXECUTE_ONLY = 1 << 0;
        /// Page-walk length of 4.
        const WALK_LENGTH_4 = 1 << 6;
        /// Uncacheable paging structures.
        const UNCACHEABLE = 1 << 8;
        /// Write-back paging structures.
        const WRITE_BACK = 1 << 14;
        /// 2 MiB pages.
        const PAGES_2M = 1 << 16;
        /// 1 GiB pages.
        const PAGES_1G = 1 << 17;
        /// INVEPT.
        const INVEPT = 1 << 20;
        /// Accessed and dirty flags.
        const ACCESSED_DIRTY = 1 << 21;
        /// Single-context INVEPT.
        const INVEPT_SINGLE = 1 << 25;
        /// All-context INVEPT.
        const INVEPT_ALL = 1 << 26;
        /// INVVPID.
        const INVVPID = 1 << 32;
        /// Individual-address INVVPID.
        const INVVPID_ADDRESS = 1 << 40;
        /// Single-context INVVPID.
        const INVVPID_SINGLE = 1 << 41;
        /// All-context INVVPID.
        const INVVPID_ALL = 1 << 42;
        /// Single-context-retaining-globals INVVPID.
        const INVVPID_RETAINING_GLOBALS = 1 << 43;
        /// Bits that newer processors define.
        const _ = !0;
    }
}

#[cfg(test)]
mod tests {
    use super::{Allowed, MissingControls, VmxBasic, VmxMisc};
    use crate::vmx::interruption::ActivityState;

    #[test]
    fn adjust_takes_what_is_there_and_names_what_is_not() {
        let allowed = Allowed(0x0000_00f3_0000_0011);
        assert_eq!(allowed.adjust(0x20, 0x0c), Ok(0x31));
        assert_eq!(allowed.adjust(0x20, 0x40), Ok(0x71));
        // The same bit wanted twice, and one that has to be 1 in any case.
        assert_eq!(allowed.adjust(0x30, 0x30), Ok(0x31));
        assert_eq!(allowed.adjust(0x24, 0), Err(MissingControls(0x04)));
    }

    #[test]
    fn a_word_is_allowed_between_what_must_and_what_may_be_one() {
        let allowed = Allowed(0x0000_00f3_0000_0011);
        assert_eq!((allowed.must_be_one(), allowed.may_be_one()), (0x11, 0xf3));
        assert!([0x11, 0x31, 0xf3].iter().all(|&word| allowed.allows(word)));
        assert!([0, 0x01, 0x10, 0x15, 0x111, u32::MAX].iter().all(|&word| !allowed.allows(word)));
    }

    #[test]
    fn basic_capabilities_have_the_manual_s_bits() {
        for bit in 0..64 {
            let alone = VmxBasic(1 << bit);
            assert_eq!(u64::from(alone.revision()), if bit < 31 { 1 << bit } else { 0 }, "bit {bit}");
            assert_eq!(alone.has_true_controls(), bit == 55, "bit {bit}");
            assert_eq!(alone.has_free_error_codes(), bit == 56, "bit {bit}");
        }
        let all = VmxBasic(u64::MAX);
        assert!(all.revision() == 0x7fff_ffff && all.has_true_controls() && all.has_free_error_codes());
    }

    #[test]
    fn miscellaneous_capabilities_have_the_manual_s_bits() {
        let of = |bit, first: u32, count| {
            if (first..first + count).contains(&bit) { 1 << (bit - first) } else { 0 }
        };
        for bit in 0..64 {
            let alone = VmxMisc(1 << bit);
            let states = [0, 1, 2, 3, 4].map(|state| alone.has_activity(ActivityState(state)));
            assert_eq!(states, [true, bit == 6, bit == 7, bit == 8, false], "bit {bit}");
            assert_eq!(alone.cr3_target_count(), of(bit, 16, 9), "bit {bit}");
            assert_eq!(alone.msr_area_entries(), 512 * (1 + of(bit, 25, 3)), "bit {bit}");
            assert_eq!(alone.writes_exit_information(), bit == 29, "bit {bit}");
            assert_eq!(alone.allows_length_0(), bit == 30, "bit {bit}");
        }
        let all = VmxMisc(u64::MAX);
        assert_eq!((all.cr3_target_count(), all.msr_area_entries()), (0x1ff, 4096));
        assert!(all.writes_exit_information() && all.allows_length_0());
        assert!(all.has_activity(ActivityState::WAIT_FOR_SIPI) && !all.has_activity(ActivityState(4)));
    }
}
