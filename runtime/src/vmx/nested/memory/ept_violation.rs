//! EPT violations of an L2 that runs under tables of L1's.

use super::ept02::access::{Access, Outcome};
use super::ept02::machine_cache as ept02;
use super::l2;
use super::missing_page::MissingPage;
use crate::exit::{Action, Exit, dispatch};
use crate::smp::percpu::PerCpu;
use crate::vcpu::RegisterState;
use crate::vmx::decode;
use crate::vmx::nested::cpu::{self, NestedCpu};
use crate::vmx::nested::exit::reflect::ExitFacts;
use crate::vmx::nested::exit::to_l1;
use crate::vmx::nested::instruction::operand;
use crate::vmx::nested::l2_vcpu::{self, L2Vcpu};
use crate::vmx::nested::vmcs12::controls::L1Controls;
use hw::Vmcs;
use x86::address::GuestPhysAddr;
use x86::vmx::ept::EptPointer;
use x86::vmx::exit_reason::ExitReason;
use x86::vmx::vmcs;

/// L2 on `cpu`, which executes this, runs under tables of L1's.
pub(in crate::vmx) fn is_nested(cpu: &PerCpu) -> bool {
    cpu::of(cpu).is_some_and(|state| L1Controls::of(&state.nested.vmcs12).has_ept())
}

/// Serves the violation, or hands it to whom it concerns.
pub(crate) fn handle(vcpu: &mut L2Vcpu<'_>, cpu: &'static PerCpu, reason: ExitReason) {
    assert!(reason == ExitReason::EPT_VIOLATION, "the tables under which L2 runs are misconfigured");
    let access = Access {
        gpa: GuestPhysAddr::new(vcpu.vmcs.read(vmcs::GUEST_PHYSICAL_ADDRESS)),
        qualification: vcpu.vmcs.read(vmcs::EXIT_QUALIFICATION),
    };
    match serve(cpu, access) {
        Outcome::Mapped | Outcome::Exhausted => l2_vcpu::apply(vcpu, cpu, reason, Action::Resume),
        Outcome::Ept01(gpa) => {
            // From here on it is an access of L1's: the hypervisor's handlers know L1's addresses alone.
            let action = decode::decode(vcpu, reason).map_or(Action::Resume, |exit| {
                let exit = match exit {
                    Exit::SecondLevelViolation(facts) => {
                        Exit::SecondLevelViolation(crate::exit::SecondLevelViolation { gpa, ..facts })
                    }
                    other => other,
                };
                dispatch::dispatch(vcpu, cpu, exit)
            });
            conclude(vcpu, cpu, reason, action);
        }
        Outcome::Violation { qualification } => {
            reflect(vcpu, cpu, ExitFacts::new(ExitReason::EPT_VIOLATION, qualification));
        }
        Outcome::Misconfiguration => {
            reflect(vcpu, cpu, ExitFacts::new(ExitReason::EPT_MISCONFIGURATION, 0));
        }
        Outcome::LogFull { qualification } => {
            reflect(vcpu, cpu, ExitFacts::new(ExitReason::PAGE_MODIFICATION_LOG_FULL, qualification));
        }
    }
}

/// Carries out what was decided for L2, unless L1 has to be asked for something first.
pub(crate) fn conclude(vcpu: &mut L2Vcpu<'_>, cpu: &'static PerCpu, reason: ExitReason, action: Action) {
    // L1 is asked before anything is carried out: L2 stands at its instruction, and tries again once the page is
    // there.
    match l2::take_asked(cpu) {
        None => l2_vcpu::apply(vcpu, cpu, reason, action),
        Some(MissingPage::Fault(event)) => l2_vcpu::apply(vcpu, cpu, reason, Action::Inject(event)),
        Some(MissingPage::SecondLevel(access)) => ask(vcpu, cpu, reason, access, None),
    }
}

/// Hands L1 the violation that an access which the hypervisor made in L2's stead was.
pub(crate) fn deny(vcpu: &mut L2Vcpu<'_>, cpu: &'static PerCpu, reason: ExitReason, access: Access) {
    let is_string = reason == ExitReason::IO_INSTRUCTION;
    let linear = if is_string { vcpu.vmcs.read(vmcs::GUEST_LINEAR_ADDRESS) } else { operand::address(vcpu) };
    ask(vcpu, cpu, reason, access, Some(linear));
}

/// The same, with the linear address where that is known. L2 is where it was, and tries again.
pub(crate) fn ask(
    vcpu: &mut L2Vcpu<'_>,
    cpu: &'static PerCpu,
    reason: ExitReason,
    access: Access,
    linear: Option<u64>,
) {
    let facts = match serve(cpu, access) {
        Outcome::Mapped | Outcome::Exhausted | Outcome::Ept01(_) => {
            return l2_vcpu::apply(vcpu, cpu, reason, Action::Resume);
        }
        Outcome::Violation { qualification } => ExitFacts::new(ExitReason::EPT_VIOLATION, qualification),
        Outcome::Misconfiguration => ExitFacts::new(ExitReason::EPT_MISCONFIGURATION, 0),
        Outcome::LogFull { qualification } => {
            ExitFacts::new(ExitReason::PAGE_MODIFICATION_LOG_FULL, qualification)
        }
    };
    let Some(state) = cpu::of(cpu) else { return };
    let registers = vcpu.registers_mut();
    let (mut state, action) = to_l1::reflect_facts(state, registers, cpu, &facts);
    // The hardware's exit told nothing of it.
    let NestedCpu { nested, hardware, .. } = &mut *state;
    nested.vmcs12.write(vmcs::GUEST_PHYSICAL_ADDRESS, access.gpa.get());
    if let Some(linear) = linear {
        nested.vmcs12.write(vmcs::GUEST_LINEAR_ADDRESS, linear);
    }
    // Once more: the shadow VMCS was written before these two were.
    hardware.return_to_l1(&nested.vmcs12);
    to_l1::exited(state, registers, cpu, action);
}

fn serve(cpu: &PerCpu, access: Access) -> Outcome {
    let Some(state) = cpu::of(cpu) else { return Outcome::Mapped };
    let pointer = EptPointer(state.nested.vmcs12.read(vmcs::EPT_POINTER));
    let mut log = l2::log_of(&state.nested.vmcs12);
    // Serving may have to wait for all CPUs.
    drop(state);
    let outcome = ept02::serve(cpu, pointer, access, log.as_mut());
    if let (Some(log), Some(mut state)) = (log, cpu::of(cpu)) {
        state.nested.vmcs12.write(vmcs::PML_INDEX, log.index);
    }
    outcome
}

fn reflect(vcpu: &mut L2Vcpu<'_>, cpu: &'static PerCpu, facts: ExitFacts) {
    let Some(state) = cpu::of(cpu) else { return };
    let registers = vcpu.registers_mut();
    let (state, action) = to_l1::reflect_facts(state, registers, cpu, &facts);
    to_l1::exited(state, registers, cpu, action);
}
