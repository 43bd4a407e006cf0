//! MSR areas on the machine: a guest's own MSRs, those that the hypervisor intercepts, and the hardware's.
//!
//! Hypapps are told of MSRs of theirs, and may ask for things that need this CPU's nesting: it is not locked then.

use super::switched;
use super::{AreaMsrs, MsrArea, Unusable};
use crate::exit::mtrr::Effect;
use crate::exit::{Action, dispatch};
use crate::hypapp::WriteAnswer;
use crate::memory::guest_physical::GuestPhysical;
use crate::smp::percpu::PerCpu;
use crate::vcpu::{RegisterState, Registers};
use crate::vmx::nested::Facts;
use crate::vmx::nested::cpu::{self, State};
use crate::vmx::nested::l2_vmcs::L2View;
use crate::vmx::nested::memory::missing_page::Note;
use crate::vmx::observers::observers;
use crate::vmx::vcpu::VmxVcpu;
use hw::bare::Processor;
use hw::bare::vmx::CurrentVmcs;
use hw::{Msrs, Vmcs};
use x86::msr::Msr;
use x86::vmx::vmcs;

/// Loads the MSRs that an entry has for L2, whose VMCS is current.
pub(crate) fn load_on_entry(
    state: State,
    registers: &mut Registers,
    cpu: &PerCpu,
    facts: &Facts,
) -> (State, Result<(), Unusable>) {
    let area = MsrArea::of_entry(&state.nested.vmcs12, &facts.capability);
    of_l2(state, registers, cpu, facts, area, |area, memory, msrs| area.load_on_entry(memory, msrs))
}

/// Stores the MSRs of L2, whose VMCS is current, that L1 asks for.
pub(crate) fn store_on_exit(
    state: State,
    registers: &mut Registers,
    cpu: &PerCpu,
    facts: &Facts,
) -> (State, Result<(), Unusable>) {
    let area = MsrArea::of_exit_store(&state.nested.vmcs12, &facts.capability);
    of_l2(state, registers, cpu, facts, area, |area, memory, msrs| area.store_on_exit(memory, msrs))
}

/// Loads the MSRs that an exit has for L1, whose VMCS is current.
pub(crate) fn load_on_exit(
    state: State,
    l1: &mut VmxVcpu<'_, CurrentVmcs>,
    cpu: &PerCpu,
    facts: &Facts,
) -> (State, Result<(), Unusable>) {
    let area = MsrArea::of_exit_load(&state.nested.vmcs12, &facts.capability);
    carry_out(state, cpu, area, || {
        GuestMsrs::with(l1, cpu, facts, |msrs| area.load_on_exit(&GuestPhysical, msrs))
    })
}

type L2Msrs<'a, 'r> = GuestMsrs<'a, 'r, L2View<CurrentVmcs>>;

fn of_l2(
    state: State,
    registers: &mut Registers,
    cpu: &PerCpu,
    facts: &Facts,
    area: MsrArea,
    act: impl FnOnce(MsrArea, &GuestPhysical, &mut L2Msrs<'_, '_>) -> Result<(), Unusable>,
) -> (State, Result<(), Unusable>) {
    let view = L2View::new(state.hardware.current(), state.nested.vmcs12.read(vmcs::CR0_MASK));
    let mut vcpu = VmxVcpu::new(view, registers, cpu.index);
    carry_out(state, cpu, area, || {
        GuestMsrs::with(&mut vcpu, cpu, facts, |msrs| act(area, &GuestPhysical, msrs))
    })
}

fn carry_out(
    mut state: State,
    cpu: &PerCpu,
    area: MsrArea,
    act: impl FnOnce() -> Result<(), Unusable>,
) -> (State, Result<(), Unusable>) {
    if area.count == 0 {
        return (state, Ok(()));
    }
    // There is no instruction of L2's to try again.
    state.missing_page = Note::of_event(false);
    let carried_out = cpu::unlocked(state, cpu, act);
    // It would be the compartment's processor that is saved, or goes on as another.
    assert!(!cpu.is_in_compartment(), "a hypapp entered a compartment for an MSR area");
    carried_out
}

/// The MSRs of the guest of one VMCS, which is current.
#[derive(Debug)]
struct GuestMsrs<'a, 'r, V> {
    vcpu: &'a mut VmxVcpu<'r, V>,
    cpu: &'a PerCpu,
    facts: &'a Facts,
    /// What MTRRs that were written changed.
    effect: Effect,
}

impl<'a, 'r, V: Vmcs> GuestMsrs<'a, 'r, V> {
    /// Acts on the MSRs. Memory types change once, behind all: it takes all CPUs.
    fn with<T>(
        vcpu: &'a mut VmxVcpu<'r, V>,
        cpu: &'a PerCpu,
        facts: &'a Facts,
        act: impl FnOnce(&mut Self) -> T,
    ) -> T {
        let mut msrs = Self { vcpu, cpu, facts, effect: Effect::Unchanged };
        let result = act(&mut msrs);
        if msrs.effect == Effect::Types {
            dispatch::adopt_mtrrs(cpu);
        }
        result
    }
}

/// Returns whether a hypapp may watch `msr` although the VMCS has it. Of the others [`dispatch`] asks the hypapp.
fn is_watchable(msr: Msr) -> bool {
    observers().field(msr).is_some()
}

impl<V: Vmcs> AreaMsrs for GuestMsrs<'_, '_, V> {
    fn read(&mut self, msr: Msr) -> Option<u64> {
        if is_watchable(msr)
            && let Some(value) = self.cpu.machine.hypapp.read_msr(self.vcpu, msr)
        {
            return Some(value);
        }
        // What the VMCS has comes first: the hardware's register is the hypervisor's own meanwhile.
        if let Some(value) = switched::read(&self.vcpu.vmcs, observers(), msr) {
            return Some(value);
        }
        // The handler of RDMSR answers in registers, which are the guest's.
        let (rax, rdx) = (self.vcpu.registers().rax(), self.vcpu.registers().rdx());
        let is_read = dispatch::read_msr(self.vcpu, self.cpu, msr) == Action::Advance;
        let value = self.vcpu.registers().edx_eax();
        let registers = self.vcpu.registers_mut();
        registers.set_rax(rax);
        registers.set_rdx(rdx);
        if is_read { Some(value) } else { self.facts.capability.read(msr).ok() }
    }

    fn write(&mut self, msr: Msr, value: u64) -> bool {
        if is_watchable(msr)
            && self.cpu.machine.hypapp.write_msr(self.vcpu, msr, value) == WriteAnswer::Handled
        {
            return true;
        }
        if let Some(is_done) = switched::write(self.vcpu, &self.facts.processor, observers(), msr, value) {
            return is_done;
        }
        let (action, effect) = dispatch::store_msr(self.vcpu, self.cpu, msr, value);
        if effect == Effect::Types {
            self.effect = effect;
        }
        action == Action::Advance
    }
}

/// Loads IA32_PERF_GLOBAL_CTRL for the guest of `vmcs`. The checks let pass only bits that the processor has.
// UNSAFETY: writes IA32_PERF_GLOBAL_CTRL.
#[expect(unsafe_code, reason = "IA32_PERF_GLOBAL_CTRL")]
pub(crate) fn load_perf_global_ctrl(vmcs: &mut impl Vmcs, value: u64) {
    if let Some(field) = observers().field(Msr::IA32_PERF_GLOBAL_CTRL) {
        return vmcs.write(field, value);
    }
    // SAFETY: the guest's own counters, as its WRMSR would set them; their records go by its own pointer, which exits
    // do not switch on such a processor either.
    if unsafe { Processor.write_trusted(Msr::IA32_PERF_GLOBAL_CTRL, value) }.is_err() {
        log::warn!("IA32_PERF_GLOBAL_CTRL does not take {value:#x}");
    }
}
