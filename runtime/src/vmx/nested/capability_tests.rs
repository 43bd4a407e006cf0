//! What is offered: no more than the list, no more than the hardware, and no register that tells of nothing.

use super::Capability;
use crate::vmx::nested::entry::checks::fixture::{DEFAULT_1, hardware};
use hw::GeneralProtection;
use hw::sim::SimMsrs;
use proptest::prelude::*;
use x86::msr::Msr;
use x86::vmx::capability::{Allowed, EptVpidCapability};

const VMFUNC: Msr = Msr(0x491);
const SECONDARY: Msr = Msr::IA32_VMX_PROCBASED_CTLS2;

fn offered(changes: &[(Msr, u64)]) -> Capability {
    let msrs = SimMsrs::new(hardware());
    for &(msr, value) in changes {
        msrs.set(msr, value);
    }
    Capability::of(&msrs, 39).unwrap()
}

fn read(capability: &Capability, msr: Msr) -> Allowed {
    Allowed(capability.read(msr).unwrap())
}

#[test]
fn a_processor_with_every_control_offers_the_known_ones() {
    let capability = offered(&[]);
    let words = [capability.pin_based, capability.primary, capability.exit, capability.entry];
    assert_eq!(words.map(Allowed::must_be_one), DEFAULT_1);
    let may = words.map(Allowed::may_be_one);
    // No tertiary controls; neither trace nor bounds, PKRS or second exit controls; no dual-monitor treatment.
    assert_eq!(may, [0xff, 0xfff9_fffe, 0x107f_ffff, 0x0010_f3ff]);
    // No VM functions, #VE, trace, mode-based execution, sub-page rights, ENCLV, PCONFIG and later.
    assert_eq!(capability.secondary.may_be_one(), 0x0613_dfff);
}

#[test]
fn registers_read_as_offered_and_unknown_ones_fault() {
    let capability = offered(&[]);
    let [pin, primary, exit, entry] = DEFAULT_1;
    assert_eq!(read(&capability, Msr::IA32_VMX_TRUE_PROCBASED_CTLS).must_be_one(), primary);
    assert_eq!(read(&capability, Msr::IA32_VMX_PROCBASED_CTLS).must_be_one(), primary | 0x1_8000);
    assert_eq!(read(&capability, Msr::IA32_VMX_TRUE_PINBASED_CTLS).must_be_one(), pin);
    assert_eq!(read(&capability, Msr::IA32_VMX_PINBASED_CTLS), capability.pin_based);
    assert_eq!(read(&capability, Msr::IA32_VMX_EXIT_CTLS).must_be_one(), exit | 4);
    assert_eq!(read(&capability, Msr::IA32_VMX_TRUE_EXIT_CTLS), capability.exit);
    assert_eq!(read(&capability, Msr::IA32_VMX_ENTRY_CTLS).must_be_one(), entry | 4);
    assert_eq!(read(&capability, Msr::IA32_VMX_TRUE_ENTRY_CTLS), capability.entry);
    assert_eq!(read(&capability, SECONDARY), capability.secondary);
    let known = (0..0x1000).map(Msr).filter(|&msr| capability.read(msr).is_ok());
    assert!(known.clone().count() > 16 && known.clone().all(Capability::covers));
    for (msr, value) in [
        (Msr::IA32_VMX_CR0_FIXED0, 0x8000_0021),
        (Msr::IA32_VMX_CR0_FIXED1, 0xffff_ffff),
        (Msr::IA32_VMX_CR4_FIXED0, 0x2000),
        (Msr::IA32_VMX_CR4_FIXED1, 0x01ff_2fff),
        (Msr::IA32_VMX_VMCS_ENUM, 0x32),
        (Msr::IA32_VMX_MISC, 0x6004_01e7),
    ] {
        assert_eq!(capability.read(msr), Ok(value), "{msr:?}");
    }
    for msr in [VMFUNC, Msr(0x492), Msr(0x493), Msr(0x47f)] {
        assert_eq!(capability.read(msr), Err(GeneralProtection), "{msr:?}");
    }
}

#[test]
fn basic_has_one_page_of_write_back_and_no_dual_monitor() {
    let basic = offered(&[(Msr::IA32_VMX_BASIC, !0)]).basic;
    assert_eq!((basic >> 32 & 0x1fff, basic >> 50 & 0xf, basic >> 49 & 1), (4096, 6, 0));
    assert_eq!((basic & 0xffff_ffff, basic >> 57), (0x7fff_ffff, 0));
}

#[test]
fn five_levels_and_newer_invalidations_are_not_offered() {
    let ept = offered(&[]).ept_vpid;
    assert_eq!(ept.bits(), 0x0f01_0633_4141);
    let without = EptVpidCapability::ACCESSED_DIRTY | EptVpidCapability::PAGES_1G;
    let ept = offered(&[(Msr::IA32_VMX_EPT_VPID_CAP, !without.bits())]).ept_vpid;
    assert!(!ept.intersects(without) && ept.contains(EptVpidCapability::PAGES_2M));
}

#[test]
fn what_tells_of_absent_features_is_absent() {
    let no_true_controls = offered(&[(Msr::IA32_VMX_BASIC, 0x1a_1000_0000_002b & !(1 << 55))]);
    for msr in 0x48d..=0x490 {
        assert_eq!(no_true_controls.read(Msr(msr)), Err(GeneralProtection), "{msr:#x}");
    }
    assert_eq!(no_true_controls.primary.must_be_one(), 0x0401_e172);

    let no_ept_or_vpid = offered(&[(SECONDARY, !0x22 << 32)]);
    assert_eq!(no_ept_or_vpid.read(Msr::IA32_VMX_EPT_VPID_CAP), Err(GeneralProtection));
    assert_eq!(no_ept_or_vpid.ept_vpid.bits(), 0);
    let only_vpid = offered(&[(SECONDARY, 0x20 << 32)]);
    assert!(only_vpid.read(Msr::IA32_VMX_EPT_VPID_CAP).is_ok());

    let primary = u64::from(DEFAULT_1[1]);
    let no_secondary = offered(&[(Msr::IA32_VMX_TRUE_PROCBASED_CTLS, 0x7fff_ffff << 32 | primary)]);
    assert_eq!(no_secondary.read(SECONDARY), Err(GeneralProtection));
    assert_eq!(no_secondary.secondary, Allowed(0));
}

#[test]
fn what_is_loaded_is_offered_where_there_is_such_a_register() {
    let controls = |msrs: Vec<(Msr, u64)>| {
        let capability = Capability::of(&SimMsrs::new(msrs), 39).unwrap();
        (capability.exit.may_be_one() >> 12 & 1, capability.entry.may_be_one() >> 13 & 1)
    };
    assert_eq!(controls(hardware()), (1, 1));
    let mut without = hardware();
    without.retain(|(msr, _)| *msr != Msr::IA32_PERF_GLOBAL_CTRL);
    assert_eq!(controls(without), (0, 0));
}

#[test]
fn a_processor_without_vmx_offers_none() {
    assert_eq!(Capability::of(&SimMsrs::new([]), 39), Err(GeneralProtection));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn nothing_is_offered_that_the_hardware_has_not(
        settings in prop::collection::vec((any::<u32>(), any::<u32>()), 9),
    ) {
        const CONTROLS: [u32; 9] = [0x481, 0x482, 0x483, 0x484, 0x48b, 0x48d, 0x48e, 0x48f, 0x490];
        // What must be 1 may be 1.
        let word = |(must, may): (u32, u32)| u64::from(may | must) << 32 | u64::from(must);
        let hardware: Vec<_> = CONTROLS.into_iter().map(Msr).zip(settings.into_iter().map(word)).collect();
        let capability = offered(&hardware);
        for &(msr, value) in &hardware {
            let Ok(offered) = capability.read(msr) else { continue };
            let (offered, has) = (Allowed(offered), Allowed(value));
            prop_assert_eq!(offered.must_be_one(), has.must_be_one());
            prop_assert_eq!(offered.may_be_one() & !has.may_be_one(), 0);
            prop_assert_eq!(offered.must_be_one() & !offered.may_be_one(), 0);
        }
    }
}

#[test]
fn control_flow_enforcement_is_loaded_where_the_hardware_can() {
    assert!(offered(&[]).has_cet());
    let without = 0xffff_ffff_0000_0000 & !(1 << 52) | u64::from(DEFAULT_1[3]);
    let changes = [(Msr::IA32_VMX_TRUE_ENTRY_CTLS, without), (Msr::IA32_VMX_ENTRY_CTLS, without | 4)];
    assert!(!offered(&changes).has_cet());
}

#[test]
fn the_capability_registers_are_a_range() {
    let last = Msr::IA32_VMX_LAST.0;
    let covered = [0x47f, 0x480, last, last + 1].map(|msr| Capability::covers(Msr(msr)));
    assert_eq!(covered, [false, true, true, false]);
}
