//! Performance counters and records of branches, which stand still while the hypervisor runs.
//!
//! An exit loads 0 into the registers that switch them, and the next entry the guest's value, which its VMCS has (SDM,
//! "VM-Exit Controls"; "VM-Entry Controls"). Older records of branches (IA32_DEBUGCTL) need no control: every exit
//! clears that register.
//!
//! UNSAFETY: registers that act while the hypervisor runs, and the value that exits load.
#![expect(unsafe_code, reason = "counters and records of branches")]

use crate::vcpu::RegisterState;
use hw::{GeneralProtection, Msrs, Vmcs};
use x86::msr::Msr;
use x86::vmx::capability::{Allowed, VmxBasic};
use x86::vmx::controls::{EntryControls, ExitControls};
use x86::vmx::vmcs::{self, Field};
use {
    super::vcpu::VmxVcpu,
    crate::exit::{Action, dispatch},
    crate::hypapp::WriteAnswer,
    crate::smp::percpu::PerCpu,
    hw::bare::Processor,
    spin::Once,
    x86::event::Event,
};

/// Registers that can be switched.
const COUNT: usize = 2;

/// The guest's values, in the order of [`REGISTERS`].
pub(super) type Values = [u64; COUNT];

/// A register that has the processor count or record what runs, and that stops it by 0.
struct Register {
    msr: Msr,
    field: Field<u64>,
    exit: ExitControls,
    entry: EntryControls,
    /// Makes exits save the guest's value; empty where they do so anyway.
    save: ExitControls,
}

const REGISTERS: [Register; COUNT] = [
    Register {
        msr: Msr::IA32_PERF_GLOBAL_CTRL,
        field: vmcs::GUEST_PERF_GLOBAL_CTRL,
        exit: ExitControls::LOAD_PERF_GLOBAL_CTRL,
        entry: EntryControls::LOAD_PERF_GLOBAL_CTRL,
        save: ExitControls::SAVE_PERF_GLOBAL_CTRL,
    },
    Register {
        msr: Msr::IA32_LBR_CTL,
        field: vmcs::GUEST_LBR_CTL,
        exit: ExitControls::CLEAR_LBR_CTL,
        entry: EntryControls::LOAD_LBR_CTL,
        save: ExitControls::empty(),
    },
];

/// How one of [`REGISTERS`] is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Way {
    /// The processor does not have it.
    #[default]
    Absent,
    /// The processor's exits do not switch it: the guest's value stays in force, but for compartments.
    Unswitched,
    /// Exits save it and load 0, entries load what was saved.
    Saved,
    /// The same, but that exits do not save it: the guest's writes exit, and are kept.
    Kept,
}

/// How this processor's counters and records of branches are kept from the hypervisor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Observers([Way; COUNT]);

static OBSERVERS: Once<Observers> = Once::new();

/// Finds out what there is, before a guest runs. Says what the processor cannot keep.
pub(super) fn prepare() {
    let features = crate::features::features();
    let there = [features.has_global_counters, features.has_architectural_lbrs];
    OBSERVERS.call_once(|| Observers::of(there, &Processor)).explain();
}

/// Returns what [`prepare`] found.
#[inline]
pub(super) fn observers() -> &'static Observers {
    match OBSERVERS.get() {
        Some(observers) => observers,
        None => unreachable!("the boot prepares them"),
    }
}

/// RDMSR of one of the registers, which the hypapp may answer.
#[cold]
pub(super) fn read_msr<V: Vmcs>(vcpu: &mut VmxVcpu<'_, V>, cpu: &PerCpu, msr: Msr) -> Action {
    let Some(field) = observers().field(msr) else { return dispatch::read_msr(vcpu, cpu, msr) };
    let answer = cpu.machine.hypapp.read_msr(vcpu, msr);
    let value = answer.unwrap_or_else(|| vcpu.vmcs.read(field));
    vcpu.registers_mut().set_edx_eax(value);
    Action::Advance
}

/// WRMSR of one of the registers, which the hypapp may take over.
#[cold]
pub(super) fn write_msr<V: Vmcs>(vcpu: &mut VmxVcpu<'_, V>, cpu: &PerCpu, msr: Msr, value: u64) -> Action {
    if observers().field(msr).is_none() {
        return dispatch::write_msr(vcpu, cpu, msr, value);
    }
    if cpu.machine.hypapp.write_msr(vcpu, msr, value) == WriteAnswer::Handled {
        return Action::Advance;
    }
    match observers().write(&mut vcpu.vmcs, &Processor, msr, value) {
        Some(Err(GeneralProtection)) => Action::Inject(Event::GP0),
        _ => Action::Advance,
    }
}

/// Returns whether `msr` is one of the registers.
#[inline]
pub(super) const fn covers(msr: Msr) -> bool {
    matches!(msr, Msr::IA32_PERF_GLOBAL_CTRL | Msr::IA32_LBR_CTL)
}

impl Observers {
    /// The best way for each of the registers that are `there`.
    pub(super) fn of(there: [bool; COUNT], msrs: &impl Msrs) -> Self {
        let (exit, entry) = exit_and_entry(msrs);
        let mut ways = [Way::Absent; COUNT];
        for ((way, register), is_there) in ways.iter_mut().zip(&REGISTERS).zip(there) {
            *way = if !is_there || msrs.read(register.msr).is_err() {
                Way::Absent
            } else if !exit.contains(register.exit) || !entry.contains(register.entry) {
                Way::Unswitched
            } else if exit.contains(register.save) {
                Way::Saved
            } else {
                Way::Kept
            };
        }
        Self(ways)
    }

    fn explain(&self) {
        let [counters, records] = self.0;
        if counters == Way::Unswitched {
            log::warn!(
                "this processor's VM exits cannot stop performance counters: the guest's count the hypervisor too, but for PALs and what serves them"
            );
        }
        if records == Way::Unswitched {
            log::warn!(
                "this processor's VM exits cannot stop records of branches: the guest's show the hypervisor too, but for PALs and what serves them"
            );
        }
    }

    /// Controls that have exits and entries switch the registers.
    pub(super) fn controls(&self) -> (ExitControls, EntryControls) {
        let (mut exit, mut entry) = (ExitControls::empty(), EntryControls::empty());
        for (way, register) in self.0.into_iter().zip(&REGISTERS) {
            if way.is_switched() {
                exit |= register.exit;
                entry |= register.entry;
            }
            if way == Way::Saved {
                exit |= register.save;
            }
        }
        (exit, entry)
    }

    /// Registers whose writes have to exit.
    pub(super) fn intercepted(&self) -> impl Iterator<Item = Msr> {
        self.each().filter(|(way, _)| *way == Way::Kept).map(|(_, register)| register.msr)
    }

    /// Returns where the VMCS has the guest's value of `msr`; `None` where the hardware has it.
    pub(super) fn field(&self, msr: Msr) -> Option<Field<u64>> {
        let found = self.each().find(|(way, register)| way.is_switched() && register.msr == msr);
        found.map(|(_, register)| register.field)
    }

    /// Makes `vmcs`, which was never entered, start with what the hardware has, and its exits load 0.
    // UNSAFETY: writes a field of host state.
    pub(super) fn begin(&self, vmcs: &mut impl Vmcs, msrs: &impl Msrs) {
        if self.field(Msr::IA32_PERF_GLOBAL_CTRL).is_some() {
            // SAFETY: nothing counts in the hypervisor, nor is written about it.
            unsafe { vmcs.write_trusted(vmcs::HOST_PERF_GLOBAL_CTRL, 0) }
        }
        for (_, register) in self.switched() {
            vmcs.write(register.field, msrs.read(register.msr).unwrap_or(0));
        }
    }

    /// Returns the guest's values in `vmcs`; 0 for what is not there.
    #[inline]
    pub(super) fn values(&self, vmcs: &impl Vmcs) -> Values {
        let mut values = Values::default();
        for ((way, register), value) in self.each().zip(&mut values) {
            if way.is_switched() {
                *value = vmcs.read(register.field);
            }
        }
        values
    }

    /// Writes `values` to `vmcs`, but for what `known` says that it has.
    #[inline]
    pub(super) fn set_values(&self, vmcs: &mut impl Vmcs, values: Values, known: Option<Values>) {
        for (index, (way, register)) in self.each().enumerate() {
            if way.is_switched() && known.is_none_or(|known| known[index] != values[index]) {
                vmcs.write(register.field, values[index]);
            }
        }
    }

    /// Stops everything for what runs next on `vmcs`; gives the guest's values.
    pub(super) fn put_aside(&self, vmcs: &mut impl Vmcs, msrs: &impl Msrs) -> Values {
        let mut values = self.values(vmcs);
        self.set_values(vmcs, Values::default(), Some(values));
        for (value, register) in self.unswitched(&mut values) {
            *value = msrs.read(register.msr).unwrap_or(0);
            if *value != 0 {
                // Zero fits any register of this kind.
                // SAFETY: it counts and records nothing with it.
                let _ = unsafe { msrs.write_trusted(register.msr, 0) };
            }
        }
        values
    }

    /// Gives the guest of `vmcs` the values back that [`Self::put_aside`] gave.
    pub(super) fn give_back(&self, vmcs: &mut impl Vmcs, msrs: &impl Msrs, mut values: Values) {
        self.set_values(vmcs, values, Some(Values::default()));
        for (value, register) in self.unswitched(&mut values) {
            if *value != 0 {
                // What was read from the register fits it.
                // SAFETY: what it had when the guest left.
                let _ = unsafe { msrs.write_trusted(register.msr, *value) };
            }
        }
    }

    /// WRMSR of the guest of `vmcs`; `None` where the hardware has the register. The register itself says what it takes,
    /// on this CPU, and is 0 again afterwards.
    pub(super) fn write(
        &self,
        vmcs: &mut impl Vmcs,
        msrs: &impl Msrs,
        msr: Msr,
        value: u64,
    ) -> Option<Result<(), GeneralProtection>> {
        let field = self.field(msr)?;
        // SAFETY: counters and records of branches name no memory, and stand still again at once.
        if let Err(fault) = unsafe { msrs.write_trusted(msr, value) } {
            return Some(Err(fault));
        }
        // Zero fits.
        // SAFETY: it counts and records nothing with it.
        let _ = unsafe { msrs.write_trusted(msr, 0) };
        vmcs.write(field, value);
        Some(Ok(()))
    }

    fn each(&self) -> impl Iterator<Item = (Way, &'static Register)> {
        self.0.into_iter().zip(&REGISTERS)
    }

    fn switched(&self) -> impl Iterator<Item = (Way, &'static Register)> {
        self.each().filter(|(way, _)| way.is_switched())
    }

    fn unswitched<'a>(
        &self,
        values: &'a mut Values,
    ) -> impl Iterator<Item = (&'a mut u64, &'static Register)> {
        let all = self.each().zip(values);
        all.filter(|((way, _), _)| *way == Way::Unswitched).map(|((_, register), value)| (value, register))
    }
}

impl Way {
    #[inline]
    const fn is_switched(self) -> bool {
        matches!(self, Self::Saved | Self::Kept)
    }
}

/// Returns the VM-exit and VM-entry controls that this processor allows; none where it does not say.
fn exit_and_entry(msrs: &impl Msrs) -> (ExitControls, EntryControls) {
    let read = |msr| msrs.read(msr).unwrap_or(0);
    let has_true_controls = VmxBasic(read(Msr::IA32_VMX_BASIC)).has_true_controls();
    let allowed =
        |plain, precise| Allowed(read(if has_true_controls { precise } else { plain })).may_be_one();
    let exit = allowed(Msr::IA32_VMX_EXIT_CTLS, Msr::IA32_VMX_TRUE_EXIT_CTLS);
    let entry = allowed(Msr::IA32_VMX_ENTRY_CTLS, Msr::IA32_VMX_TRUE_ENTRY_CTLS);
    (ExitControls::from_bits_retain(exit), EntryControls::from_bits_retain(entry))
}

/// Processors with both registers, for tests.
#[cfg(test)]
pub(super) mod fixture {
    use super::{ExitControls, Msr, Observers};
    use hw::Msrs;
    use hw::sim::SimMsrs;
    use x86::vmx::vmcs;

    pub(in super::super) const COUNTERS: u32 = vmcs::GUEST_PERF_GLOBAL_CTRL.encoding();
    pub(in super::super) const RECORDS: u32 = vmcs::GUEST_LBR_CTL.encoding();

    /// A processor with all controls, whose counters and records have `value`.
    pub(in super::super) fn msrs(value: u64) -> SimMsrs {
        const TRUE_CONTROLS: u64 = 1 << 55;
        SimMsrs::new([
            (Msr::IA32_VMX_BASIC, TRUE_CONTROLS),
            (Msr::IA32_VMX_TRUE_EXIT_CTLS, !0),
            (Msr::IA32_VMX_TRUE_ENTRY_CTLS, !0),
            (Msr::IA32_PERF_GLOBAL_CTRL, value),
            (Msr::IA32_LBR_CTL, value),
        ])
    }

    /// What there is on it.
    pub(in super::super) fn processor() -> Observers {
        processor_with(ExitControls::empty())
    }

    /// The same without VM-exit controls.
    pub(in super::super) fn processor_with(missing: ExitControls) -> Observers {
        let msrs = msrs(0);
        let all = msrs.read(Msr::IA32_VMX_TRUE_EXIT_CTLS).unwrap();
        msrs.set(Msr::IA32_VMX_TRUE_EXIT_CTLS, all & !(u64::from(missing.bits()) << 32));
        Observers::of([true; 2], &msrs)
    }
}

#[cfg(test)]
#[path = "observers_tests.rs"]
mod tests;
