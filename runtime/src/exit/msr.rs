//! RDMSR and WRMSR of the registers that are intercepted.
//!
//! The guest owns its processors, so an MSR passes without an exit unless it would break the hypervisor or
//! shows what the hypervisor hides. Registers outside the ranges of the bitmap always exit; they are tried on
//! the hardware, and a fault there is the guest's #GP(0). MTRRs are the business of [`super::mtrr`].

use super::Action;
use super::mtrr::VirtualMtrrs;
use super::pointer::{self, Physical};
use crate::vcpu::Vcpu;
use hw::{GeneralProtection, Msrs};
use x86::apic::ApicBase;
use x86::event::Event;
use x86::feature_control::FeatureControl;
use x86::msr::{CORE_CAPABILITIES_RAR, MISC_ENABLE_XD_DISABLE, Msr};

/// What reading and writing MSRs depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsrPolicy {
    /// The guest may be a hypervisor; MSRs that say what it can do as one are then answered before they come here.
    pub nested: bool,
    /// Width of physical addresses in bits.
    pub physical_address_bits: u8,
    /// The local APIC has an x2APIC mode.
    pub has_x2apic: bool,
    /// Bytes of the table that the hardware feedback interface writes; 0 without.
    pub feedback_bytes: u64,
}

/// A range of MSRs that must exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Intercept {
    /// Which.
    pub msr: Msr,
    /// RDMSR exits.
    pub read: bool,
    /// WRMSR exits.
    pub write: bool,
}

/// Returns the MSRs that must exit, MTRRs excepted, for the MSR bitmap.
pub fn intercepted() -> impl Iterator<Item = Intercept> {
    INTERCEPTED
        .iter()
        .flat_map(|&(first, last, read, write)| {
            (first.0..=last.0).map(move |number| Intercept { msr: Msr(number), read, write })
        })
        .chain(configurations_c().map(|msr| Intercept { msr, read: false, write: true }))
}

/// Configurations C of performance counters: they have records written.
fn configurations_c() -> impl Iterator<Item = Msr> {
    (Msr::IA32_PMC_GP0_CTR.0..=Msr::IA32_PMC_LAST.0).map(Msr).filter(|&msr| is_configuration_c(msr))
}

/// Returns whether `msr`, of a counter with four, is the last of the four.
const fn is_configuration_c(msr: Msr) -> bool {
    msr.0 & 3 == 3
}

/// First and last, read, write.
const INTERCEPTED: [(Msr, Msr, bool, bool); 16] = [
    (Msr::IA32_APIC_BASE, Msr::IA32_APIC_BASE, false, true),
    (Msr::IA32_FEATURE_CONTROL, Msr::IA32_FEATURE_CONTROL, true, true),
    (Msr::IA32_BIOS_UPDT_TRIG, Msr::IA32_BIOS_UPDT_TRIG, false, true),
    (Msr::TRACE_HUB_STH_ACPIBAR_BASE, Msr::TRACE_HUB_STH_ACPIBAR_BASE, false, true),
    (Msr::IA32_CORE_CAPABILITIES, Msr::IA32_CORE_CAPABILITIES, true, false),
    (Msr::IA32_RAR_FIRST, Msr::IA32_RAR_LAST, true, true),
    (Msr::IA32_SMRR_PHYSBASE, Msr::SMRR2_PHYS_MASK, false, true),
    (Msr::PRMRR_BASE_0, Msr::PRMRR_BASE_7, false, true),
    (Msr::UNCORE_PRMRR_PHYS_BASE, Msr::UNCORE_PRMRR_PHYS_MASK, false, true),
    (Msr::IA32_SEAMRR_PHYS_BASE, Msr::IA32_SEAMRR_PHYS_MASK, false, true),
    (Msr::IA32_MISC_ENABLE, Msr::IA32_MISC_ENABLE, false, true),
    (Msr::IA32_PEBS_FIRST, Msr::IA32_PEBS_INDEX, false, true),
    (Msr::IA32_VMX_BASIC, Msr::IA32_VMX_LAST, true, true),
    (Msr::IA32_RTIT_FIRST, Msr::IA32_RTIT_LAST, true, true),
    (Msr::IA32_TME_ACTIVATE, Msr::IA32_TME_EXCLUDE_BASE, false, true),
    (Msr::IA32_HW_FEEDBACK_PTR, Msr::IA32_HW_FEEDBACK_PTR, false, true),
];

/// RDMSR: the value goes to EDX:EAX.
pub fn read<V: Vcpu + ?Sized>(vcpu: &mut V, msr: Msr, policy: &MsrPolicy, msrs: &impl Msrs) -> Action {
    let value = match treatment(msr) {
        Treatment::Absent | Treatment::Switched => Err(GeneralProtection),
        Treatment::FeatureControl => msrs.read(msr).map(|value| feature_control(value, policy)),
        Treatment::CoreCapabilities => msrs.read(msr).map(|value| value & !CORE_CAPABILITIES_RAR),
        _ => msrs.read(msr),
    };
    match value {
        Ok(value) => {
            vcpu.registers_mut().set_edx_eax(value);
            Action::Advance
        }
        Err(GeneralProtection) => Action::Inject(Event::GP0),
    }
}

/// WRMSR of `value`.
// UNSAFETY: writes registers that the guest may have.
#[expect(unsafe_code, reason = "writes what the guest may have")]
pub fn write(msr: Msr, value: u64, policy: &MsrPolicy, physical: &impl Physical, msrs: &impl Msrs) -> Action {
    let is_allowed = match treatment(msr) {
        Treatment::Absent | Treatment::Switched | Treatment::FeatureControl | Treatment::Locked => false,
        // The update is not loaded: the revision stays as it was, which is how a guest sees a failure.
        Treatment::MicrocodeTrigger => return Action::Advance,
        Treatment::ApicBase => {
            is_apic_base_legal(value, policy, msrs) && pointer::is_apic_base_allowed(value, physical)
        }
        Treatment::MiscEnable => value & MISC_ENABLE_XD_DISABLE == 0,
        Treatment::Pebs => value == 0,
        Treatment::HardwareFeedback => pointer::is_feedback_allowed(value, policy.feedback_bytes, physical),
        Treatment::Hardware | Treatment::CoreCapabilities => true,
    };
    if !is_allowed {
        return Action::Inject(Event::GP0);
    }
    // SAFETY: a register that the guest may have: what it could reach the hypervisor by was sorted out above, as was an
    // address over memory that is not the guest's; entries and exits switch what the hypervisor has others for.
    match unsafe { msrs.write_trusted(msr, value) } {
        Ok(()) => Action::Advance,
        Err(GeneralProtection) => Action::Inject(Event::GP0),
    }
}

/// How an MSR that exits is treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Treatment {
    /// The access is carried out as it is.
    Hardware,
    /// The guest's processor does not have it.
    Absent,
    /// Entry and exit switch it, or [`super::mtrr`] keeps the guest's value: the hardware's is not the guest's.
    Switched,
    /// Reads as locked, without virtualization and SMX, and takes no writes, as when it is locked.
    FeatureControl,
    /// Takes no writes, as when the firmware has locked it: it changes what memory reads as, or where the processor
    /// writes what it traces.
    Locked,
    /// A write loads a microcode update.
    MicrocodeTrigger,
    /// Moves the local APIC.
    ApicBase,
    /// Could switch execute-disable off, and with it the hypervisor's own page tables.
    MiscEnable,
    /// Could have records written in the hypervisor's address space, or to a physical address: holds 0 for ever.
    Pebs,
    /// Names memory that the hardware writes.
    HardwareFeedback,
    /// Says which features there are: not those that [`Treatment::Absent`] takes away.
    CoreCapabilities,
}

fn treatment(msr: Msr) -> Treatment {
    match msr {
        // No bitmap has a bit for these, so that they are what exits most; first, as the list below is long.
        Msr(0x2000..=0xbfff_ffff | 0xc000_2000..) => Treatment::Hardware,
        Msr::IA32_APIC_BASE => Treatment::ApicBase,
        Msr::IA32_FEATURE_CONTROL => Treatment::FeatureControl,
        Msr::IA32_BIOS_UPDT_TRIG => Treatment::MicrocodeTrigger,
        Msr::IA32_MISC_ENABLE => Treatment::MiscEnable,
        Msr(0x3f0..=0x3f5) => Treatment::Pebs,
        Msr(0x1900..=0x19ff) if is_configuration_c(msr) => Treatment::Pebs,
        Msr::IA32_HW_FEEDBACK_PTR => Treatment::HardwareFeedback,
        Msr::IA32_CORE_CAPABILITIES => Treatment::CoreCapabilities,
        Msr(0x80 | 0x1f2..=0x1f7 | 0x2a0..=0x2a7 | 0x2f4..=0x2f5 | 0x982..=0x984 | 0x1400..=0x1401) => {
            Treatment::Locked
        }
        Msr(0xed..=0xf0 | 0x480..=0x493 | 0x560..=0x58f) => Treatment::Absent,
        Msr::IA32_EFER | Msr::IA32_FS_BASE | Msr::IA32_GS_BASE | Msr::IA32_PAT | Msr::IA32_DEBUGCTL => {
            Treatment::Switched
        }
        Msr::IA32_SYSENTER_CS | Msr::IA32_SYSENTER_ESP | Msr::IA32_SYSENTER_EIP => Treatment::Switched,
        Msr::IA32_MTRR_DEF_TYPE | Msr(0x200..=0x26f) => Treatment::Switched,
        _ => Treatment::Hardware,
    }
}

/// Returns whether an entry loads `msr` for a guest and an exit saves it, MTRRs aside.
pub(super) fn is_switched(msr: Msr) -> bool {
    !VirtualMtrrs::covers(msr) && treatment(msr) == Treatment::Switched
}

/// IA32_FEATURE_CONTROL as the guest reads it (SDM, "Architectural MSRs").
fn feature_control(value: u64, policy: &MsrPolicy) -> u64 {
    let mut shown = FeatureControl::from_bits_retain(value);
    shown.remove(FeatureControl::VMX_INSIDE_SMX | FeatureControl::SENTER);
    if !policy.nested {
        shown.remove(FeatureControl::VMX_OUTSIDE_SMX);
    }
    (shown | FeatureControl::LOCK).bits()
}

/// Returns whether the processor would take `value` for IA32_APIC_BASE, and the hypervisor can let it.
fn is_apic_base_legal(value: u64, policy: &MsrPolicy, msrs: &impl Msrs) -> bool {
    const X2APIC: u64 = ApicBase::X2APIC.bits();
    const ENABLE: u64 = ApicBase::ENABLE.bits();
    let reserved = 0xff
        | 1 << 9
        | u64::MAX.checked_shl(policy.physical_address_bits.into()).unwrap_or(0)
        | if policy.has_x2apic { 0 } else { X2APIC };
    let Ok(old) = msrs.read(Msr::IA32_APIC_BASE) else { return false };
    // SDM, "x2APIC State Transitions".
    let is_legal_transition = match (old & (ENABLE | X2APIC), value & (ENABLE | X2APIC)) {
        (_, X2APIC) => false,
        (ENABLE, _) => true,
        (from, ENABLE) => from == 0,
        (from, to) if to == ENABLE | X2APIC => from == to,
        _ => true,
    };
    value & reserved == 0 && is_legal_transition
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::pointer::FakePhysical;
    use crate::memory::range::GuestRange;
    use crate::vcpu::fake::FakeVcpu;
    use hw::sim::SimMsrs;
    use std::collections::BTreeSet;

    const POLICY: MsrPolicy =
        MsrPolicy { nested: false, physical_address_bits: 36, has_x2apic: true, feedback_bytes: 0x1_0000 };
    /// Of which the processor may write nothing.
    const REGION: GuestRange = GuestRange::between(0x1000_0000, 0x1080_0000);
    const GP: Action = Action::Inject(Event::GP0);

    fn read_with(policy: &MsrPolicy, msrs: &SimMsrs, msr: Msr) -> Result<u64, Action> {
        let mut vcpu = FakeVcpu::long_mode();
        vcpu.registers.set_rax(!0);
        vcpu.registers.set_rdx(!0);
        match read(&mut vcpu, msr, policy, msrs) {
            Action::Advance => {
                assert!(vcpu.registers.rax() >> 32 == 0 && vcpu.registers.rdx() >> 32 == 0);
                Ok(vcpu.registers.edx_eax())
            }
            action => {
                assert_eq!((vcpu.registers.rax(), vcpu.registers.rdx()), (!0, !0));
                Err(action)
            }
        }
    }

    fn write_with(policy: &MsrPolicy, msr: Msr, value: u64, msrs: &SimMsrs) -> Action {
        write(msr, value, policy, &FakePhysical::new(REGION), msrs)
    }

    fn write_to(old: u64, msr: Msr, value: u64) -> (Action, u64) {
        let msrs = SimMsrs::new([(msr, old)]);
        let action = write_with(&POLICY, msr, value, &msrs);
        (action, msrs.read(msr).unwrap())
    }

    #[test]
    fn an_unknown_msr_faults_and_a_known_one_is_carried_out() {
        let msrs = SimMsrs::new([(Msr(0x4b56_4d00), 0x1_0000_0002)]);
        assert_eq!(read_with(&POLICY, &msrs, Msr(0x4b56_4d01)), Err(GP));
        assert_eq!(read_with(&POLICY, &msrs, Msr(0x4b56_4d00)), Ok(0x1_0000_0002));
        assert_eq!(write_with(&POLICY, Msr(0x4b56_4d01), 1, &msrs), GP);
        assert_eq!(write_with(&POLICY, Msr(0x4b56_4d00), 9, &msrs), Action::Advance);
        assert_eq!(msrs.read(Msr(0x4b56_4d00)), Ok(9));
    }

    #[test]
    fn every_special_msr_is_intercepted_and_nothing_else() {
        let in_bitmap = || (0..0x2000).chain(0xc000_0000..0xc000_2000).map(Msr);
        let special: BTreeSet<_> = in_bitmap()
            .filter(|&msr| !matches!(treatment(msr), Treatment::Hardware | Treatment::Switched))
            .collect();
        let listed: BTreeSet<_> = intercepted().map(|intercept| intercept.msr).collect();
        assert_eq!(special, listed);
    }

    #[test]
    fn feature_control_reads_locked_without_vmx_and_takes_no_write() {
        let everything = 0x17_ff07;
        let msrs = SimMsrs::new([(Msr::IA32_FEATURE_CONTROL, everything)]);
        assert_eq!(read_with(&POLICY, &msrs, Msr::IA32_FEATURE_CONTROL), Ok(0x17_0001));
        let nested = MsrPolicy { nested: true, ..POLICY };
        assert_eq!(read_with(&nested, &msrs, Msr::IA32_FEATURE_CONTROL), Ok(0x17_0005));
        let unlocked = SimMsrs::new([(Msr::IA32_FEATURE_CONTROL, 0)]);
        assert_eq!(read_with(&POLICY, &unlocked, Msr::IA32_FEATURE_CONTROL), Ok(1));
        assert_eq!(write_to(0, Msr::IA32_FEATURE_CONTROL, 5), (GP, 0));
    }

    #[test]
    fn hidden_features_have_no_registers() {
        for msr in [Msr::IA32_VMX_BASIC, Msr::IA32_VMX_LAST, Msr::IA32_RTIT_FIRST, Msr::IA32_RTIT_LAST] {
            let msrs = SimMsrs::new([(msr, 3)]);
            assert_eq!(read_with(&POLICY, &msrs, msr), Err(GP));
            assert_eq!(write_to(3, msr, 0), (GP, 3));
        }
    }

    #[test]
    fn a_microcode_update_does_not_happen_and_the_guest_goes_on() {
        assert_eq!(write_to(7, Msr::IA32_BIOS_UPDT_TRIG, 0xffff_8000_0000_0030), (Action::Advance, 7));
    }

    #[test]
    fn registers_that_are_switched_are_never_the_hardwares() {
        for msr in [Msr::IA32_EFER, Msr::IA32_GS_BASE, Msr::IA32_SYSENTER_EIP, Msr::IA32_MTRR_DEF_TYPE] {
            assert_eq!(write_to(5, msr, 0), (GP, 5));
            assert_eq!(read_with(&POLICY, &SimMsrs::new([(msr, 5)]), msr), Err(GP));
        }
    }

    #[test]
    fn execute_disable_stays_and_other_features_are_the_guests() {
        assert_eq!(write_to(1, Msr::IA32_MISC_ENABLE, 1 << 34 | 1), (GP, 1));
        assert_eq!(write_to(1 << 34, Msr::IA32_MISC_ENABLE, 1 << 18), (Action::Advance, 1 << 18));
    }

    #[test]
    fn no_performance_counter_has_records_written() {
        const PEBS_BASE: Msr = Msr(0x3f4);
        const GP7_CONFIGURATION_C: Msr = Msr(0x191f);
        const FIXED3_CONFIGURATION_C: Msr = Msr(0x198f);
        for msr in [Msr::IA32_PEBS_ENABLE, PEBS_BASE, GP7_CONFIGURATION_C, FIXED3_CONFIGURATION_C] {
            assert!(intercepted().any(|intercept| intercept.msr == msr && intercept.write), "{msr:?}");
            assert_eq!(write_to(0, msr, 1), (GP, 0), "{msr:?}");
            assert_eq!(write_to(0, msr, 0), (Action::Advance, 0), "{msr:?}");
        }
        for msr in [Msr::IA32_PMC_GP0_CTR, Msr(0x1901), Msr(0x1902), Msr(0x3f6)] {
            assert!(intercepted().all(|intercept| intercept.msr != msr), "{msr:?}");
        }
    }

    #[test]
    fn the_firmwares_ranges_and_traces_take_no_write() {
        let ranges = (0x1f2..=0x1f7).chain(0x2a0..=0x2a7);
        for number in ranges.chain([0x80, 0x2f4, 0x2f5, 0x1400, 0x1401]) {
            let exits = intercepted().any(|range| range.msr == Msr(number) && range.write && !range.read);
            assert!(exits, "{number:#x}");
            assert_eq!(write_to(7, Msr(number), 0), (GP, 7), "{number:#x}");
            assert_eq!(read_with(&POLICY, &SimMsrs::new([(Msr(number), 7)]), Msr(number)), Ok(7));
        }
    }

    #[test]
    fn remote_action_requests_are_not_there() {
        let msrs = SimMsrs::new([(Msr::IA32_CORE_CAPABILITIES, 0xff), (Msr::IA32_RAR_LAST, 1)]);
        assert_eq!(read_with(&POLICY, &msrs, Msr::IA32_CORE_CAPABILITIES), Ok(0xfd));
        assert_eq!(read_with(&POLICY, &msrs, Msr::IA32_RAR_LAST), Err(GP));
        assert_eq!(write_to(0, Msr::IA32_RAR_FIRST, 0x1000), (GP, 0));
    }

    #[test]
    fn memory_encryption_reads_as_it_is_and_takes_no_write() {
        let msrs = SimMsrs::new([(Msr::IA32_TME_ACTIVATE, 2)]);
        assert_eq!(read_with(&POLICY, &msrs, Msr::IA32_TME_ACTIVATE), Ok(2));
        assert_eq!(write_to(2, Msr::IA32_TME_ACTIVATE, 3), (GP, 2));
        assert_eq!(write_to(0, Msr::IA32_TME_EXCLUDE_BASE, 0x1000), (GP, 0));
    }

    #[test]
    fn feedback_tables_keep_out_of_the_hypervisor() {
        let run = |value| write_to(0, Msr::IA32_HW_FEEDBACK_PTR, value).0;
        assert_eq!(run(0x0fff_1001), GP);
        assert_eq!(run(0x107f_f001), GP);
        assert_eq!(run(0x0fff_0001), Action::Advance);
        assert_eq!(run(0x1080_0001), Action::Advance);
    }

    #[test]
    fn the_apic_moves_only_where_it_may() {
        const USUAL: u64 = 0xfee0_0900;
        let run = |value| write_to(USUAL, Msr::IA32_APIC_BASE, value);
        assert_eq!(run(0xd000_0900), (Action::Advance, 0xd000_0900));
        for refused in [0x1000_0900, 0x7fff_f900, 0x10_0000_0900, USUAL | 1, USUAL | 1 << 9] {
            assert_eq!(run(refused), (GP, USUAL), "{refused:#x}");
        }
        let no_x2apic = MsrPolicy { has_x2apic: false, ..POLICY };
        let msrs = SimMsrs::new([(Msr::IA32_APIC_BASE, USUAL)]);
        assert_eq!(write_with(&no_x2apic, Msr::IA32_APIC_BASE, USUAL | 1 << 10, &msrs), GP);
    }

    #[test]
    fn apic_modes_change_as_the_manual_draws_them() {
        const BASE: u64 = 0xfee0_0000;
        let (disabled, xapic, x2apic, invalid) = (0, 0x800, 0xc00, 0x400);
        let may = |from, to| write_to(BASE | from, Msr::IA32_APIC_BASE, BASE | to).0 == Action::Advance;
        let legal: Vec<_> = [disabled, xapic, x2apic]
            .into_iter()
            .flat_map(|from| [disabled, xapic, x2apic, invalid].map(|to| (from, to)))
            .filter(|&(from, to)| may(from, to))
            .collect();
        let expected = [
            (disabled, disabled),
            (disabled, xapic),
            (xapic, disabled),
            (xapic, xapic),
            (xapic, x2apic),
            (x2apic, disabled),
            (x2apic, x2apic),
        ];
        assert_eq!(legal, expected);
    }
}
