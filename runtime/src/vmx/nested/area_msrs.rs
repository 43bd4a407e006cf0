//! MSR areas on the machine: a guest's own MSRs, those that the hypervisor intercepts, and the hardware's.

use super::Facts;
use super::msr_area::AreaMsrs;
use super::switched_msrs;
use crate::exit::{Action, dispatch};
use crate::smp::percpu::PerCpu;
use crate::vcpu::Vcpu;
use crate::vmx::vcpu::VmxVcpu;
use hw::bare::Processor;
use hw::{Msrs, Vmcs};
use x86::msr::Msr;

/// The MSRs of the guest of one VMCS, which is current.
#[derive(Debug)]
pub(super) struct GuestMsrs<'a, 'r, V> {
    pub(super) vcpu: &'a mut VmxVcpu<'r, V>,
    pub(super) cpu: &'a PerCpu,
    pub(super) facts: &'a Facts,
}

impl<V: Vmcs> AreaMsrs for GuestMsrs<'_, '_, V> {
    fn read(&mut self, msr: Msr) -> Option<u64> {
        if let Some(value) = switched_msrs::read(&self.vcpu.vmcs, msr) {
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
        switched_msrs::write(self.vcpu, &self.facts.processor, msr, value)
            .unwrap_or_else(|| dispatch::write_msr(self.vcpu, self.cpu, msr, value) == Action::Advance)
    }
}

/// Loads IA32_PERF_GLOBAL_CTRL, which neither VMCS of ours switches.
pub(super) fn load_perf_global_ctrl(value: u64) {
    // The checks let pass only bits that the processor has.
    if Processor.write(Msr::IA32_PERF_GLOBAL_CTRL, value).is_err() {
        log::warn!("IA32_PERF_GLOBAL_CTRL does not take {value:#x}");
    }
}
