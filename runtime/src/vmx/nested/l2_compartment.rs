//! L2 in a compartment ([`crate::vmx::compartment`]): nothing of what happens there is L1's.

use super::cpu;
use super::l2_vcpu::{self, L2Vcpu};
use super::memory::ept_violation;
use crate::exit::CompartmentExit;
use crate::exit::{Action, Exit, dispatch};
use crate::smp::percpu::PerCpu;
use crate::vcpu::Registers;
use crate::vmx::controls::Controls;
use crate::vmx::decode;
use hw::Vmcs;
use x86::event::{Event, Vector};
use x86::vmx::exit_reason::ExitReason;
use x86::vmx::interruption::Interruption;
use x86::vmx::vmcs;

/// Returns the controls for the compartment of a guest of L1's; `None` where L1 itself runs.
pub(in crate::vmx) fn controls_of_compartment(cpu: &PerCpu) -> Option<Controls> {
    if !cpu::is_l2(cpu) {
        return None;
    }
    cpu::of(cpu).map(|state| state.hardware.l0_controls)
}

/// An exit from the compartment that L2 is in.
#[inline(never)]
pub(super) fn handle(vcpu: &mut L2Vcpu<'_>, cpu: &'static PerCpu, reason: ExitReason) {
    let cause = if reason.is_entry_failure() { None } else { decode::decode(vcpu, reason) };
    let Some(cause) = cause else { panic!("no control of ours leads to this exit: {}", reason.name()) };
    let action = match cause {
        Exit::Cpuid => dispatch::cpuid(vcpu, cpu),
        Exit::Hypercall => dispatch::hypercall(vcpu, cpu),
        Exit::Nmi => {
            cpu.note_nmi();
            Action::Resume
        }
        // It is L1's, and waits until L2 is back, as interrupts do: else L1 could step what runs here by it.
        Exit::Init => {
            cpu.keep_guest_init();
            Action::Resume
        }
        Exit::Exception(event @ Event::Exception { vector: Vector::MC, .. }) => {
            dispatch::in_compartment(vcpu, cpu, cause);
            let injected = Interruption(vcpu.vmcs.read(vmcs::ENTRY_INTERRUPTION_INFORMATION));
            // L2 is to take it, or L1 where it intercepts it.
            vcpu.vmcs.write(vmcs::ENTRY_INTERRUPTION_INFORMATION, 0);
            if injected.is_valid() { Action::Inject(event) } else { Action::Resume }
        }
        _ => {
            dispatch::in_compartment(vcpu, cpu, cause);
            Action::Resume
        }
    };
    ept_violation::conclude(vcpu, cpu, reason, action);
}

/// Another CPU called this one, whose guest is in a compartment; false where it is L1.
pub(in crate::vmx) fn called(registers: &mut Registers, cpu: &PerCpu) -> bool {
    if !cpu::is_l2(cpu) {
        return false;
    }
    if let Some(state) = cpu::of(cpu) {
        cpu.machine
            .hypapp
            .compartment_exit(&mut l2_vcpu::view_of(state, registers, cpu, false), CompartmentExit::Called);
    }
    true
}
