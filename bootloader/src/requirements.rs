//! What the processor must have, and VMX switched on where the firmware left the choice open.

use core::fmt;

use hw::apic::Mode;
use hw::{Cpuid, GeneralProtection, Msrs};
use x86::cpuid::{Leaf1Ecx, Leaf80000001Edx};
use x86::feature_control::FeatureControl;
use x86::msr::{GuestMsr, Msr};
use x86::vmx::needed;

/// What the processor lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// 64-bit mode.
    LongMode,
    /// VMX, or it is not shown.
    Vmx,
    /// The firmware switched VMX off and locked that.
    VmxLockedOff,
    /// IA32_FEATURE_CONTROL cannot be written though it is not locked.
    VmxRefused,
    /// A VM-execution control or an EPT capability, by the SDM's name.
    Capability(&'static str),
    /// The local APIC, which the firmware switched off: other CPUs are called by it.
    LocalApic,
}

/// Checks all that the hypervisor needs of this processor; switches VMX on and locks it where the
/// firmware did neither.
///
/// # Errors
///
/// The first thing that is missing.
pub fn check(processor: &(impl Cpuid + Msrs)) -> Result<(), Missing> {
    if processor.cpuid(0x8000_0000, 0).eax < 0x8000_0001
        || processor.cpuid(0x8000_0001, 0).edx & Leaf80000001Edx::LONG_MODE.bits() == 0
    {
        return Err(Missing::LongMode);
    }
    let features = processor.cpuid(1, 0).ecx;
    if features & Leaf1Ecx::VMX.bits() == 0 {
        return Err(Missing::Vmx);
    }
    switch_on(processor, features & Leaf1Ecx::SMX.bits() != 0)?;
    if let Some(feature) = needed::first_missing(|msr| processor.read(msr).ok()) {
        return Err(Missing::Capability(feature.name));
    }
    check_local_apic(processor)
}

/// A CPU that cannot be called here could be started by the guest, which may switch its local APIC on again.
fn check_local_apic(processor: &impl Msrs) -> Result<(), Missing> {
    let base = processor.read(Msr::IA32_APIC_BASE).unwrap_or(0);
    if Mode::of(base) == Mode::Disabled { Err(Missing::LocalApic) } else { Ok(()) }
}

/// Refuses to start above another hypervisor of our kind, unless that is wanted: as a rule its guest was to be another
/// disk, and each would start the next for ever.
///
/// # Errors
///
/// [`Beneath`].
pub fn check_beneath(processor: &impl Cpuid, is_wanted: bool) -> Result<(), Beneath> {
    let is_beneath = processor.cpuid(XMHF, 0).eax == XMHF;
    if is_beneath && !is_wanted { Err(Beneath) } else { Ok(()) }
}

/// A hypervisor of our kind runs beneath.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beneath;

impl fmt::Display for Beneath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "this hypervisor runs already and its guest is the disk that it started from; have the second module and \
             boot_drive= name the guest's disk, or say nested_xmhf=on",
        )
    }
}

/// CPUID leaf and answer by which hypervisors of our kind are known: "XMHF".
const XMHF: u32 = u32::from_le_bytes(*b"XMHF");

/// Returns the local APIC ID of the processor that runs this.
#[must_use]
pub fn local_apic_id(processor: &impl Cpuid) -> u32 {
    let id = processor.identify();
    let topology = id.get_extended_topology_info().and_then(|mut levels| levels.next());
    let own = || id.get_feature_info().map(|features| features.initial_local_apic_id().into());
    topology.map(|level| level.x2apic_id()).or_else(own).unwrap_or(0)
}

/// SDM, "Enabling and Entering VMX Operation".
fn switch_on(processor: &impl Msrs, smx: bool) -> Result<(), Missing> {
    let refused = |_: GeneralProtection| Missing::VmxRefused;
    let mut control =
        FeatureControl::from_bits_retain(processor.read(Msr::IA32_FEATURE_CONTROL).map_err(refused)?);
    if control.contains(FeatureControl::LOCK) {
        let is_allowed = control.contains(FeatureControl::VMX_OUTSIDE_SMX);
        return if is_allowed { Ok(()) } else { Err(Missing::VmxLockedOff) };
    }
    control |= FeatureControl::VMX_OUTSIDE_SMX | FeatureControl::LOCK;
    if smx {
        control |= FeatureControl::VMX_INSIDE_SMX;
    }
    processor.write(GuestMsr::IA32_FEATURE_CONTROL, control.bits()).map_err(refused)
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LongMode => f.write_str("this processor has no 64-bit mode; use a 64-bit Intel processor"),
            Self::Vmx => f.write_str(
                "this processor shows no VMX; enable Intel Virtualization Technology (VT-x) in the firmware set-up, \
                 or VMX in the virtual machine's CPU model",
            ),
            Self::VmxLockedOff => f.write_str(
                "the firmware switched VMX off and locked it; enable Intel Virtualization Technology (VT-x) in the \
                 firmware set-up and switch the power off and on",
            ),
            Self::VmxRefused => f.write_str(
                "IA32_FEATURE_CONTROL cannot be read or written; enable Intel Virtualization Technology (VT-x) in \
                 the firmware set-up",
            ),
            Self::LocalApic => f.write_str(
                "the firmware switched the local APIC off, by which other CPUs are called; switch it on in the \
                 firmware set-up",
            ),
            Self::Capability(name) => write!(
                f,
                "this processor's VMX lacks \"{name}\"; use an Intel Core processor of 2010 (Westmere) or later, \
                 or show all of VMX in the virtual machine's CPU model",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use hw::sim::{SimCpuid, SimMsrs, SimProcessor};
    use x86::cpuid::CpuidResult;

    use super::*;

    const VMX: u32 = 1 << 5;
    const SMX: u32 = 1 << 6;
    const LONG_MODE: u32 = 1 << 29;

    const CONTROLS: [(Msr, u64); 8] = [
        (Msr::IA32_VMX_PINBASED_CTLS, 0x28 << 32),
        (Msr::IA32_VMX_PROCBASED_CTLS, 0x9200_0000 << 32),
        (Msr::IA32_VMX_EXIT_CTLS, 0x3c_0204 << 32),
        (Msr::IA32_VMX_ENTRY_CTLS, 0xc004 << 32),
        (Msr::IA32_VMX_PROCBASED_CTLS2, 0xa2 << 32),
        (Msr::IA32_VMX_EPT_VPID_CAP, 1 << 41 | 1 << 32 | 1 << 26 | 1 << 20 | 1 << 14 | 1 << 6),
        (Msr::IA32_FEATURE_CONTROL, 5),
        (Msr::IA32_APIC_BASE, 0xfee0_0900),
    ];

    /// A processor with everything, IA32_FEATURE_CONTROL as the firmware may leave it.
    fn processor(features: u32) -> SimProcessor {
        let leaf = |eax, ecx, edx| CpuidResult { eax, ebx: 0x0500_0000, ecx, edx };
        let cpuid = SimCpuid::default()
            .with(0, 0, leaf(4, 0, 0))
            .with(1, 0, leaf(0, features, 0))
            .with(0x8000_0000, 0, leaf(0x8000_0008, 0, 0))
            .with(0x8000_0001, 0, leaf(0, 0, LONG_MODE));
        SimProcessor { cpuid, msrs: SimMsrs::new(CONTROLS) }
    }

    #[test]
    fn another_of_our_kind_beneath_has_to_be_wanted() {
        let answer =
            |leaf, eax| SimCpuid::default().with(leaf, 0, CpuidResult { eax, ..CpuidResult::default() });
        assert_eq!(check_beneath(&SimCpuid::default(), false), Ok(()));
        assert_eq!(check_beneath(&answer(XMHF, 7), false), Ok(()));
        assert_eq!(check_beneath(&answer(XMHF, XMHF), false), Err(Beneath));
        assert_eq!(check_beneath(&answer(XMHF, XMHF), true), Ok(()));
    }

    #[test]
    fn a_full_processor_passes_untouched() {
        let fake = processor(VMX);
        assert_eq!(check(&fake), Ok(()));
        assert_eq!(fake.msrs.writes(), []);
    }

    #[test]
    fn an_open_choice_is_made_and_locked() {
        for (features, before, after) in [(VMX, 0, 5), (VMX | SMX, 0, 7), (VMX, 0xff00, 0xff05)] {
            let fake = processor(features);
            fake.msrs.set(Msr::IA32_FEATURE_CONTROL, before);
            assert_eq!(check(&fake), Ok(()));
            assert_eq!(fake.msrs.writes(), [(Msr::IA32_FEATURE_CONTROL, after)]);
        }
    }

    #[test]
    fn a_locked_choice_is_kept() {
        for locked_off in [1, 3] {
            let fake = processor(VMX);
            fake.msrs.set(Msr::IA32_FEATURE_CONTROL, locked_off);
            assert_eq!(check(&fake), Err(Missing::VmxLockedOff));
            assert_eq!(fake.msrs.writes(), []);
        }
        let mut fake = processor(VMX);
        fake.msrs = SimMsrs::new([(Msr::IA32_FEATURE_CONTROL, 0)]).with_read_only(Msr::IA32_FEATURE_CONTROL);
        assert_eq!(check(&fake), Err(Missing::VmxRefused));
    }

    #[test]
    fn no_vmx_and_no_long_mode_are_told_apart() {
        assert_eq!(check(&processor(0)), Err(Missing::Vmx));
        let mut fake = processor(VMX);
        fake.cpuid = SimCpuid::default();
        assert_eq!(check(&fake), Err(Missing::LongMode));
    }

    #[test]
    fn each_missing_capability_is_named() {
        for feature in &needed::FEATURES {
            let fake = processor(VMX);
            fake.msrs.set(feature.msr, fake.msrs.read(feature.msr).unwrap() & !feature.bits);
            assert_eq!(check(&fake), Err(Missing::Capability(feature.name)));
            assert!(Missing::Capability(feature.name).to_string().contains(feature.name));
        }
    }

    #[test]
    fn a_local_apic_that_is_off_is_named() {
        for (base, expected) in
            [(0xfee0_0100, Err(Missing::LocalApic)), (0xfee0_0900, Ok(())), (0xfee0_0d00, Ok(()))]
        {
            let fake = processor(VMX);
            fake.msrs.set(Msr::IA32_APIC_BASE, base);
            assert_eq!(check(&fake), expected, "{base:#x}");
        }
    }

    #[test]
    fn the_apic_id_comes_from_the_widest_leaf() {
        assert_eq!(local_apic_id(&processor(VMX)), 5);
        let wide = |ecx| {
            SimCpuid::default()
                .with(0, 0, CpuidResult { eax: 0xb, ..CpuidResult::default() })
                .with(1, 0, CpuidResult { ebx: 0x0700_0000, ..CpuidResult::default() })
                .with(0xb, 0, CpuidResult { ebx: 1, ecx, edx: 0x1_0007, ..CpuidResult::default() })
        };
        // A level of threads, and none.
        assert_eq!((local_apic_id(&wide(1 << 8)), local_apic_id(&wide(0))), (0x1_0007, 7));
    }
}
