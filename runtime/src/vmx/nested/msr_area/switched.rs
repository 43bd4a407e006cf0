//! MSRs that a VM entry and a VM exit switch: the guest's are in its VMCS, where MSR areas find them.

use crate::vcpu::PagingState;
use crate::vmx::nested::entry::checks::Processor;
use crate::vmx::observers::Observers;
use crate::vmx::vcpu::VmxVcpu;
use hw::Vmcs;
use x86::cr::{Cr0, Efer};
use x86::msr::Msr;
use x86::vmx::controls::{PrimaryControls, SecondaryControls};
use x86::vmx::vmcs::{self, Field};

/// Returns where the VMCS has the guest's value of `msr`; `None` where the hardware has it.
fn field(observers: &Observers, msr: Msr) -> Option<Field<u64>> {
    match msr {
        Msr::IA32_EFER => Some(vmcs::GUEST_EFER),
        Msr::IA32_PAT => Some(vmcs::GUEST_PAT),
        Msr::IA32_DEBUGCTL => Some(vmcs::GUEST_DEBUGCTL),
        Msr::IA32_FS_BASE => Some(vmcs::GUEST_FS_BASE),
        Msr::IA32_GS_BASE => Some(vmcs::GUEST_GS_BASE),
        Msr::IA32_SYSENTER_ESP => Some(vmcs::GUEST_SYSENTER_ESP),
        Msr::IA32_SYSENTER_EIP => Some(vmcs::GUEST_SYSENTER_EIP),
        _ => observers.field(msr),
    }
}

/// Returns whether the guest's value of `msr` is in its VMCS.
pub(crate) fn is_switched(observers: &Observers, msr: Msr) -> bool {
    msr == Msr::IA32_SYSENTER_CS || field(observers, msr).is_some()
}

/// Returns the guest's value of `msr`; `None` where the hardware has it.
pub(crate) fn read(vmcs: &impl Vmcs, observers: &Observers, msr: Msr) -> Option<u64> {
    if msr == Msr::IA32_SYSENTER_CS {
        return Some(vmcs.read(vmcs::GUEST_SYSENTER_CS).into());
    }
    field(observers, msr).map(|field| vmcs.read(field))
}

/// Returns what the guest reads of its time-stamp counter where the processor's is `counter` (SDM, "Time-Stamp Counter
/// Offset and Multiplier").
pub(crate) fn time_stamp(vmcs: &impl Vmcs, counter: u64) -> u64 {
    let primary = PrimaryControls::from_bits_retain(vmcs.read(vmcs::PRIMARY_CONTROLS));
    if !primary.contains(PrimaryControls::USE_TSC_OFFSETTING) {
        return counter;
    }
    let secondary = SecondaryControls::from_bits_retain(vmcs.read(vmcs::SECONDARY_CONTROLS));
    let is_scaled = primary.contains(PrimaryControls::ACTIVATE_SECONDARY_CONTROLS)
        && secondary.contains(SecondaryControls::USE_TSC_SCALING);
    let multiplier = if is_scaled { vmcs.read(vmcs::TSC_MULTIPLIER) } else { 1 << 48 };
    let product = (u128::from(counter) * u128::from(multiplier)) >> 48;
    let scaled = u64::try_from(product & u128::from(u64::MAX)).unwrap_or_default();
    scaled.wrapping_add(vmcs.read(vmcs::TSC_OFFSET))
}

/// Writes `value` to the guest's `msr`; returns false where WRMSR would fault, `None` where the hardware has it.
pub(crate) fn write<V: Vmcs>(
    vcpu: &mut VmxVcpu<'_, V>,
    processor: &Processor,
    observers: &Observers,
    msr: Msr,
    value: u64,
) -> Option<bool> {
    if msr == Msr::IA32_SYSENTER_CS {
        // The upper half is not there, and ignored.
        vcpu.vmcs.write(vmcs::GUEST_SYSENTER_CS, u32::try_from(value & 0xffff_ffff).unwrap_or_default());
        return Some(true);
    }
    let field = field(observers, msr)?;
    let is_accepted = match msr {
        Msr::IA32_EFER => return Some(write_efer(vcpu, processor, value)),
        Msr::IA32_PAT => Processor::accepts_pat(value),
        Msr::IA32_DEBUGCTL => value & !processor.debugctl == 0,
        Msr::IA32_PERF_GLOBAL_CTRL => processor.accepts_perf_global_ctrl(value),
        Msr::IA32_LBR_CTL => value & !processor.lbr_ctl == 0,
        _ => processor.is_canonical(value),
    };
    if is_accepted {
        vcpu.vmcs.write(field, value);
    }
    Some(is_accepted)
}

/// WRMSR of IA32_EFER: LMA is not written, and LME not while paging is on.
fn write_efer<V: Vmcs>(vcpu: &mut VmxVcpu<'_, V>, processor: &Processor, value: u64) -> bool {
    let (old, new) = (vcpu.efer(), Efer::from_bits_retain(value));
    let changes_mode = (old ^ new).contains(Efer::LME);
    if value & !processor.efer != 0 || changes_mode && vcpu.cr0().contains(Cr0::PG) {
        return false;
    }
    vcpu.set_efer((new - Efer::LMA) | old & Efer::LMA);
    true
}

#[cfg(test)]
mod tests {
    use super::{PrimaryControls, Processor, SecondaryControls, is_switched, read, time_stamp, write};
    use crate::vcpu::Registers;
    use crate::vmx::observers;
    use crate::vmx::vcpu::VmxVcpu;
    use hw::Vmcs as _;
    use hw::sim::{SimCpuid, SimMsrs, SimVmcs};
    use x86::cpuid::CpuidResult;
    use x86::msr::Msr;
    use x86::vmx::vmcs;

    fn processor() -> Processor {
        let features = CpuidResult { edx: 1 << 11 | 1 << 20 | 1 << 29, ..CpuidResult::default() };
        let widths = CpuidResult { eax: 48 << 8 | 39, ..CpuidResult::default() };
        let counters = CpuidResult { eax: 0x0402, edx: 3, ..CpuidResult::default() };
        // Records of branches with call stacks, and without filters.
        let records = CpuidResult { ebx: 1 << 2, ..CpuidResult::default() };
        let cpuid = SimCpuid::default()
            .with(0, 0, CpuidResult { eax: 0x1c, ..CpuidResult::default() })
            .with(7, 0, CpuidResult { edx: 1 << 19, ..CpuidResult::default() })
            .with(0xa, 0, counters)
            .with(0x1c, 0, records)
            .with(0x8000_0001, 0, features)
            .with(0x8000_0008, 0, widths);
        Processor::of(&cpuid, &SimMsrs::new([(Msr::IA32_DEBUGCTL, 0)]))
    }

    /// A write where EFER was `efer` and paging is on or off.
    fn write_to(efer: u64, is_paged: bool, msr: Msr, value: u64) -> (Option<bool>, Option<u64>) {
        let mut vmcs = SimVmcs::default();
        vmcs.write(vmcs::GUEST_EFER, efer);
        vmcs.write(vmcs::GUEST_CR0, if is_paged { 0x8000_0001 } else { 1 });
        let mut registers = Registers::default();
        let mut vcpu = VmxVcpu::new(vmcs, &mut registers, 0);
        let observers = observers::fixture::processor();
        let done = write(&mut vcpu, &processor(), &observers, msr, value);
        (done, read(&vcpu.vmcs, &observers, msr))
    }

    #[test]
    fn each_msr_of_the_vmcs_is_read_and_written_there() {
        // A value that each of them takes.
        const VALUE: u64 = 1;
        for (msr, field) in [
            (Msr::IA32_PAT, vmcs::GUEST_PAT),
            (Msr::IA32_DEBUGCTL, vmcs::GUEST_DEBUGCTL),
            (Msr::IA32_FS_BASE, vmcs::GUEST_FS_BASE),
            (Msr::IA32_GS_BASE, vmcs::GUEST_GS_BASE),
            (Msr::IA32_SYSENTER_ESP, vmcs::GUEST_SYSENTER_ESP),
            (Msr::IA32_SYSENTER_EIP, vmcs::GUEST_SYSENTER_EIP),
        ] {
            let observers = observers::fixture::processor();
            let mut registers = Registers::default();
            let mut vcpu = VmxVcpu::new(SimVmcs::default(), &mut registers, 0);
            assert!(is_switched(&observers, msr), "{msr:?}");
            assert_eq!(write(&mut vcpu, &processor(), &observers, msr, VALUE), Some(true), "{msr:?}");
            assert_eq!(vcpu.vmcs.read(field), VALUE, "{msr:?}");
            assert_eq!(read(&vcpu.vmcs, &observers, msr), Some(VALUE), "{msr:?}");
        }
    }

    #[test]
    fn efer_keeps_lma_and_with_paging_lme() {
        let efer = Msr::IA32_EFER;
        assert_eq!(write_to(0x501, true, efer, 0x900), (Some(true), Some(0xd00)));
        assert_eq!(write_to(0x501, true, efer, 0x001), (Some(false), Some(0x501)));
        assert_eq!(write_to(0x001, false, efer, 0x501), (Some(true), Some(0x101)));
        assert_eq!(write_to(0x001, false, efer, 0x003), (Some(false), Some(1)));
    }

    #[test]
    fn values_that_wrmsr_refuses_are_refused() {
        for (msr, good, bad) in [
            (Msr::IA32_PAT, 0x0007_0406_0007_0406, 0x0207_0406_0007_0406),
            (Msr::IA32_DEBUGCTL, 1, 1 << 4),
            (Msr::IA32_SYSENTER_ESP, 0xffff_8000_0000_0000, 0x8000_0000_0000),
            (Msr::IA32_SYSENTER_EIP, 0x7fff_ffff_ffff, 1 << 63),
            (Msr::IA32_PERF_GLOBAL_CTRL, 0x7_0000_000f, 0x8_0000_0000),
            (Msr::IA32_LBR_CTL, 0x9, 0x1_0001),
        ] {
            assert_eq!(write_to(0, false, msr, good), (Some(true), Some(good)), "{msr:?}");
            assert_eq!(write_to(0, false, msr, bad).0, Some(false), "{msr:?}");
        }
        assert_eq!(write_to(0, false, Msr::IA32_SYSENTER_CS, 0x9_0000_0010), (Some(true), Some(0x10)));
    }

    #[test]
    fn the_time_stamp_is_scaled_and_moved_as_controls_say() {
        let mut vmcs = SimVmcs::default();
        vmcs.write(vmcs::TSC_OFFSET, u64::MAX);
        vmcs.write(vmcs::TSC_MULTIPLIER, 3 << 47);
        assert_eq!(time_stamp(&vmcs, 100), 100);
        vmcs.write(vmcs::PRIMARY_CONTROLS, PrimaryControls::USE_TSC_OFFSETTING.bits());
        assert_eq!(time_stamp(&vmcs, 100), 99);
        vmcs.write(vmcs::SECONDARY_CONTROLS, SecondaryControls::USE_TSC_SCALING.bits());
        assert_eq!(time_stamp(&vmcs, 100), 99, "secondary controls are not activated");
        let both = PrimaryControls::USE_TSC_OFFSETTING | PrimaryControls::ACTIVATE_SECONDARY_CONTROLS;
        vmcs.write(vmcs::PRIMARY_CONTROLS, both.bits());
        assert_eq!(time_stamp(&vmcs, 100), 149);
        assert_eq!(time_stamp(&vmcs, u64::MAX), 0x7fff_ffff_ffff_fffd);
    }

    #[test]
    fn other_registers_are_the_hardwares() {
        assert_eq!(write_to(0, false, Msr::IA32_LSTAR, 5), (None, None));
    }
}
