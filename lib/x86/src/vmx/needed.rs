//! What of VMX the hypervisor cannot do without (SDM, appendix "VMX Capability Reporting Facility"). The bootloader
//! names what its processor lacks; every CPU is asked again when it is set up.

use super::capability::{Allowed, EptVpidCapability};
use super::controls::{EntryControls, ExitControls, PinBasedControls, PrimaryControls, SecondaryControls};
use crate::msr::Msr;

/// One feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feature {
    /// The capability register that tells of it.
    pub msr: Msr,
    /// Its bits there, all of which are 1 on a processor that has it.
    pub bits: u64,
    /// The SDM's name.
    pub name: &'static str,
}

/// All of them. Registers come in an order in which each is told of by what stands before it.
pub const FEATURES: [Feature; 21] = [
    pin_based(PinBasedControls::NMI_EXITING, "NMI exiting"),
    pin_based(PinBasedControls::VIRTUAL_NMIS, "virtual NMIs"),
    primary(PrimaryControls::USE_IO_BITMAPS, "use I/O bitmaps"),
    primary(PrimaryControls::USE_MSR_BITMAPS, "use MSR bitmaps"),
    primary(PrimaryControls::ACTIVATE_SECONDARY_CONTROLS, "activate secondary controls"),
    secondary(SecondaryControls::ENABLE_EPT, "enable EPT"),
    secondary(SecondaryControls::ENABLE_VPID, "enable VPID"),
    secondary(SecondaryControls::UNRESTRICTED_GUEST, "unrestricted guest"),
    exit(ExitControls::HOST_ADDRESS_SPACE_SIZE, "host address-space size"),
    exit(ExitControls::SAVE_DEBUG_CONTROLS, "save debug controls"),
    exit(ExitControls::SAVE_PAT, "save IA32_PAT"),
    exit(ExitControls::LOAD_PAT, "load IA32_PAT at VM exits"),
    exit(ExitControls::SAVE_EFER, "save IA32_EFER"),
    exit(ExitControls::LOAD_EFER, "load IA32_EFER at VM exits"),
    entry(EntryControls::LOAD_DEBUG_CONTROLS, "load debug controls"),
    entry(EntryControls::LOAD_PAT, "load IA32_PAT at VM entries"),
    entry(EntryControls::LOAD_EFER, "load IA32_EFER at VM entries"),
    ept_vpid(EptVpidCapability::WALK_LENGTH_4, "EPT page-walk length of 4"),
    ept_vpid(EptVpidCapability::WRITE_BACK, "EPT write-back paging structures"),
    // By these stale translations are dropped.
    ept_vpid(EptVpidCapability::INVEPT.union(EptVpidCapability::INVEPT_ALL), "all-context INVEPT"),
    ept_vpid(EptVpidCapability::INVVPID.union(EptVpidCapability::INVVPID_SINGLE), "single-context INVVPID"),
];

/// Pin-based VM-execution controls.
pub const PIN_BASED: PinBasedControls =
    PinBasedControls::from_bits_retain(controls(Msr::IA32_VMX_PINBASED_CTLS));
/// Primary processor-based VM-execution controls.
pub const PRIMARY: PrimaryControls =
    PrimaryControls::from_bits_retain(controls(Msr::IA32_VMX_PROCBASED_CTLS));
/// Secondary processor-based VM-execution controls.
pub const SECONDARY: SecondaryControls =
    SecondaryControls::from_bits_retain(controls(Msr::IA32_VMX_PROCBASED_CTLS2));
/// VM-exit controls.
pub const EXIT: ExitControls = ExitControls::from_bits_retain(controls(Msr::IA32_VMX_EXIT_CTLS));
/// VM-entry controls.
pub const ENTRY: EntryControls = EntryControls::from_bits_retain(controls(Msr::IA32_VMX_ENTRY_CTLS));

/// Returns the first feature that a processor lacks. `read` gives its capability registers, or nothing for one that
/// it has not; a register is asked for only after those that tell that it is there.
pub fn first_missing(read: impl Fn(Msr) -> Option<u64>) -> Option<&'static Feature> {
    FEATURES.iter().find(|feature| read(feature.msr).unwrap_or(0) & feature.bits != feature.bits)
}

/// The controls that are needed of those that this register tells of.
const fn controls(msr: Msr) -> u32 {
    let mut all = 0;
    let mut index = 0;
    while index < FEATURES.len() {
        if FEATURES[index].msr.0 == msr.0 {
            all |= FEATURES[index].bits;
        }
        index += 1;
    }
    Allowed(all).may_be_one()
}

const fn pin_based(control: PinBasedControls, name: &'static str) -> Feature {
    may_be_1(Msr::IA32_VMX_PINBASED_CTLS, control.bits(), name)
}

const fn primary(control: PrimaryControls, name: &'static str) -> Feature {
    may_be_1(Msr::IA32_VMX_PROCBASED_CTLS, control.bits(), name)
}

const fn secondary(control: SecondaryControls, name: &'static str) -> Feature {
    may_be_1(Msr::IA32_VMX_PROCBASED_CTLS2, control.bits(), name)
}

const fn exit(control: ExitControls, name: &'static str) -> Feature {
    may_be_1(Msr::IA32_VMX_EXIT_CTLS, control.bits(), name)
}

const fn entry(control: EntryControls, name: &'static str) -> Feature {
    may_be_1(Msr::IA32_VMX_ENTRY_CTLS, control.bits(), name)
}

/// The upper half of the register says which controls may be 1, and the TRUE one of it says the same (SDM, "Primary
/// Processor-Based VM-Execution Controls", of that appendix).
const fn may_be_1(msr: Msr, control: u32, name: &'static str) -> Feature {
    Feature { msr, bits: (control as u64) << 32, name }
}

const fn ept_vpid(capability: EptVpidCapability, name: &'static str) -> Feature {
    Feature { msr: Msr::IA32_VMX_EPT_VPID_CAP, bits: capability.bits(), name }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a processor says of `msr` that has what is needed and nothing else.
    fn just_enough(msr: Msr) -> u64 {
        FEATURES.iter().filter(|feature| feature.msr == msr).fold(0, |all, feature| all | feature.bits)
    }

    #[test]
    fn each_feature_is_missed_by_its_name_and_no_other() {
        assert_eq!(first_missing(|msr| Some(just_enough(msr))), None);
        for feature in &FEATURES {
            for bit in (0..64).map(|bit| 1 << bit).filter(|bit| feature.bits & bit != 0) {
                let without = |msr| Some(just_enough(msr) & if msr == feature.msr { !bit } else { !0 });
                assert_eq!(first_missing(without), Some(feature), "{bit:#x}");
            }
        }
    }

    #[test]
    fn a_register_is_read_only_after_those_that_tell_of_it() {
        let secondary = |msr| msr == Msr::IA32_VMX_PROCBASED_CTLS2 || msr == Msr::IA32_VMX_EPT_VPID_CAP;
        let read = |msr| if secondary(msr) { panic!("nothing tells of {msr:?}") } else { Some(0x2a << 32) };
        assert_eq!(first_missing(read).map(|feature| feature.name), Some("use I/O bitmaps"));
        let without_ept = |msr| match msr {
            Msr::IA32_VMX_EPT_VPID_CAP => panic!("nothing tells of EPT"),
            Msr::IA32_VMX_PROCBASED_CTLS2 => None,
            _ => Some(just_enough(msr)),
        };
        assert_eq!(first_missing(without_ept).map(|feature| feature.name), Some("enable EPT"));
    }

    #[test]
    fn the_sets_of_controls_are_those_of_the_table() {
        assert_eq!(PIN_BASED.bits(), 0x28);
        assert_eq!(PRIMARY.bits(), 0x9200_0000);
        assert_eq!(SECONDARY.bits(), 0xa2);
        assert_eq!(EXIT.bits(), 0x3c_0204);
        assert_eq!(ENTRY.bits(), 0xc004);
    }
}
