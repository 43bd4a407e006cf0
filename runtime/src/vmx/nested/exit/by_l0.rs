//! Exits of L2 that are the hypervisor's own, by the handlers that serve L1, over L2's memory.

use crate::exit::{Action, Exit, control_register, dispatch, port};
use crate::memory::guest_physical::GuestPhysical;
use crate::smp::percpu::PerCpu;
use crate::vcpu::RegisterState;
use crate::vmx::cet;
use crate::vmx::decode;
use crate::vmx::nested::cpu;
use crate::vmx::nested::instruction::l1_exit;
use crate::vmx::nested::instruction::linked::{self, L2};
use crate::vmx::nested::l2_vcpu::L2Vcpu;
use crate::vmx::nested::memory::l2::L2Memory;
use crate::vmx::nested::msr_area::switched;
use crate::vmx::observers::{self, observers};
use hw::bare::Processor;
use x86::event::Event;
use x86::msr::Msr;
use x86::vmx::exit_reason::ExitReason;

/// Handles the exit; `None` where none of the hypervisor's controls leads to it. Where L1's tables forbid an access
/// to `memory` on the way, that has it.
pub(crate) fn handle(
    vcpu: &mut L2Vcpu<'_>,
    cpu: &'static PerCpu,
    reason: ExitReason,
    memory: &L2Memory,
) -> Option<Action> {
    Some(match decode::decode(vcpu, reason)? {
        Exit::Port(access) => {
            port::handle(vcpu, memory, cpu.machine.hypapp, &Processor, &cpu.machine.policies.power, access)
        }
        Exit::ControlRegister(access) => {
            control_register::handle(vcpu, memory, &cpu.machine.policies.control_register, access)
        }
        // A hypapp may watch it, which L1's bitmap does not say.
        Exit::ReadMsr { msr } if observers::covers(msr) => observers::read_msr(vcpu, cpu, msr),
        // L1's bitmap wanted the exit when the processor looked, and no more when we did.
        Exit::ReadMsr { msr } if switched::is_switched(observers(), msr) => {
            let value = switched::read(&vcpu.vmcs, observers(), msr).unwrap_or_default();
            vcpu.registers_mut().set_edx_eax(value);
            Action::Advance
        }
        Exit::WriteMsr { msr, value } if observers::covers(msr) => {
            observers::write_msr(vcpu, cpu, msr, value)
        }
        Exit::WriteMsr { msr, value } if switched::is_switched(observers(), msr) => {
            let processor = &cpu::facts()?.processor;
            match switched::write(vcpu, processor, observers(), msr, value) {
                Some(true) => Action::Advance,
                _ => Action::Inject(Event::GP0),
            }
        }
        exit @ Exit::WriteMsr { msr, .. } if cet::covers(msr) => {
            let action = dispatch::dispatch(vcpu, cpu, exit);
            if cpu::facts()?.capability.has_cet() {
                // The next entry may load them.
                cet::save_registers(&mut vcpu.vmcs);
            }
            action
        }
        // L2 finds the VMX MSRs that L1 finds.
        exit @ Exit::ReadMsr { .. } => match dispatch::dispatch(vcpu, cpu, exit) {
            refusal @ Action::Inject(Event::GP0) => l1_exit::read_msr(vcpu, refusal),
            action => {
                if exit == (Exit::ReadMsr { msr: Msr::IA32_TIME_STAMP_COUNTER }) {
                    let value = switched::time_stamp(&vcpu.vmcs, vcpu.registers().edx_eax());
                    vcpu.registers_mut().set_edx_eax(value);
                }
                action
            }
        },
        // None of these touches memory of its guest.
        exit @ (Exit::WriteMsr { .. }
        | Exit::Exception(_)
        | Exit::ExternalInterrupt
        | Exit::InterruptWindow) => dispatch::dispatch(vcpu, cpu, exit),
        _ => return None,
    })
}

/// Carries out VMREAD or VMWRITE of the VMCS that L1 linked for L2.
pub(crate) fn access_linked_vmcs(
    vcpu: &mut L2Vcpu<'_>,
    cpu: &PerCpu,
    reason: ExitReason,
    memory: &L2Memory,
) -> Option<Action> {
    let (mut state, facts) = (cpu::of(cpu)?, cpu::facts()?);
    let mut l2 = L2 { vcpu, memory, l1_memory: &GuestPhysical, facts };
    Some(linked::execute(&mut state.nested, &mut l2, reason))
}
