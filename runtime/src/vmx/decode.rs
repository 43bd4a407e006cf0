//! Exits as the rest of the hypervisor understands them (SDM, "Basic VM-Exit Information").

use super::vcpu::VmxVcpu;
use crate::exit::{
    ControlRegisterAccess, Exit, PortAccess, SecondLevelViolation, StringPort, TaskSwitch, TaskSwitchSource,
};
use crate::vcpu::Vcpu;
use hw::{PortWidth, Vmcs};
use x86::address::{GuestLinearAddr, GuestPhysAddr};
use x86::event::{Event, Vector};
use x86::msr::Msr;
use x86::segment::SegmentRegister;
use x86::vmx::exit_qualification::{
    ControlRegisterQualification, EptViolationQualification, IoQualification, TaskSwitchQualification,
};
use x86::vmx::exit_reason::ExitReason;
use x86::vmx::interruption::{Interruption, InterruptionType};
use x86::vmx::vmcs;

/// The cause of an exit; `None` where the controls that we set cannot lead to it.
pub(super) fn decode<V: Vmcs>(vcpu: &VmxVcpu<'_, V>, reason: ExitReason) -> Option<Exit> {
    let basic = ExitReason(u32::from(reason.basic()));
    Some(match basic {
        ExitReason::CPUID => Exit::Cpuid,
        ExitReason::RDMSR => Exit::ReadMsr { msr: msr(vcpu) },
        ExitReason::WRMSR => Exit::WriteMsr { msr: msr(vcpu), value: vcpu.registers().edx_eax() },
        ExitReason::VMCALL => Exit::Hypercall,
        ExitReason::CONTROL_REGISTER => Exit::ControlRegister(control_register(vcpu)?),
        ExitReason::IO_INSTRUCTION => Exit::Port(port(vcpu)?),
        ExitReason::XSETBV => Exit::Xsetbv,
        ExitReason::EPT_VIOLATION => Exit::SecondLevelViolation(violation(vcpu)),
        ExitReason::TASK_SWITCH => Exit::TaskSwitch(task_switch(vcpu)),
        ExitReason::INVD => Exit::Invd,
        ExitReason::WBINVD => Exit::Wbinvd,
        ExitReason::INIT => Exit::Init,
        ExitReason::STARTUP_IPI => Exit::Startup { vector: startup_vector(vcpu) },
        ExitReason::TRIPLE_FAULT => Exit::TripleFault,
        ExitReason::NMI_WINDOW => Exit::NmiWindow,
        ExitReason::INTERRUPT_WINDOW => Exit::InterruptWindow,
        ExitReason::EXTERNAL_INTERRUPT => Exit::ExternalInterrupt,
        ExitReason::EXCEPTION_OR_NMI => exception_or_nmi(vcpu),
        ExitReason::GETSEC
        | ExitReason::VMCLEAR
        | ExitReason::VMLAUNCH
        | ExitReason::VMPTRLD
        | ExitReason::VMPTRST
        | ExitReason::VMREAD
        | ExitReason::VMRESUME
        | ExitReason::VMWRITE
        | ExitReason::VMXOFF
        | ExitReason::VMXON
        | ExitReason::INVEPT
        | ExitReason::INVVPID
        | ExitReason::VMFUNC
        | ExitReason::RSM => Exit::UndefinedInstruction,
        _ => return None,
    })
}

#[expect(clippy::cast_possible_truncation, reason = "RDMSR and WRMSR look at ECX")]
fn msr<V: Vmcs>(vcpu: &VmxVcpu<'_, V>) -> Msr {
    Msr(vcpu.registers().rcx() as u32)
}

fn qualification<V: Vmcs>(vcpu: &VmxVcpu<'_, V>) -> u64 {
    vcpu.vmcs.read(vmcs::EXIT_QUALIFICATION)
}

#[expect(clippy::cast_possible_truncation, reason = "the vector is the low byte")]
fn startup_vector<V: Vmcs>(vcpu: &VmxVcpu<'_, V>) -> u8 {
    qualification(vcpu) as u8
}

fn control_register<V: Vmcs>(vcpu: &VmxVcpu<'_, V>) -> Option<ControlRegisterAccess> {
    let facts = ControlRegisterQualification(qualification(vcpu));
    let (control_register, register) = (facts.control_register(), facts.register());
    Some(match facts.access() {
        0 => ControlRegisterAccess::MovTo { control_register, register },
        1 => ControlRegisterAccess::MovFrom { control_register, register },
        2 => ControlRegisterAccess::Clts,
        _ => ControlRegisterAccess::Lmsw { source: facts.lmsw_source() },
    })
}

fn port<V: Vmcs>(vcpu: &VmxVcpu<'_, V>) -> Option<PortAccess> {
    let facts = IoQualification(qualification(vcpu));
    let width = match facts.size() {
        0 => PortWidth::Byte,
        1 => PortWidth::Word,
        3 => PortWidth::Dword,
        _ => return None,
    };
    let string = facts.is_string().then(|| {
        // SDM, "VM-Exit Instruction-Information Field as Used for INS and OUTS".
        let information = vcpu.vmcs.read(vmcs::EXIT_INSTRUCTION_INFORMATION);
        let segment = SegmentRegister::ALL[(information >> 15 & 7).min(5) as usize];
        StringPort {
            is_repeated: facts.is_repeated(),
            address_bits: 16 << (information >> 7 & 7).min(2),
            segment: if facts.is_input() { SegmentRegister::Es } else { segment },
        }
    });
    Some(PortAccess { port: facts.port(), width, is_input: facts.is_input(), string })
}

fn violation<V: Vmcs>(vcpu: &VmxVcpu<'_, V>) -> SecondLevelViolation {
    let facts = EptViolationQualification(qualification(vcpu));
    let gla = facts.has_linear_address().then(|| GuestLinearAddr::new(vcpu.vmcs.read(vmcs::GUEST_LINEAR_ADDRESS)));
    SecondLevelViolation {
        gpa: GuestPhysAddr::new(vcpu.vmcs.read(vmcs::GUEST_PHYSICAL_ADDRESS)),
        gla,
        is_read: facts.is_read(),
        is_write: facts.is_write(),
        is_fetch: facts.is_fetch(),
        is_walk: facts.has_linear_address() && !facts.is_final_access(),
    }
}

fn task_switch<V: Vmcs>(vcpu: &VmxVcpu<'_, V>) -> TaskSwitch {
    let facts = TaskSwitchQualification(qualification(vcpu));
    let source = match facts.source() {
        0 => TaskSwitchSource::Call,
        1 => TaskSwitchSource::Iret,
        2 => TaskSwitchSource::Jump,
        _ => {
            let vectoring = Interruption(vcpu.vmcs.read(vmcs::IDT_VECTORING_INFORMATION));
            if vectoring.is_software() {
                TaskSwitchSource::SoftwareInterrupt
            } else {
                let code = || vcpu.vmcs.read(vmcs::IDT_VECTORING_ERROR_CODE);
                TaskSwitchSource::Event { error_code: vectoring.has_error_code().then(code) }
            }
        }
    };
    TaskSwitch { selector: facts.selector(), source }
}

fn exception_or_nmi<V: Vmcs>(vcpu: &VmxVcpu<'_, V>) -> Exit {
    let word = Interruption(vcpu.vmcs.read(vmcs::EXIT_INTERRUPTION_INFORMATION));
    if word.kind() == InterruptionType::NMI {
        return Exit::Nmi;
    }
    let code = || vcpu.vmcs.read(vmcs::EXIT_INTERRUPTION_ERROR_CODE);
    let error_code = word.has_error_code().then(code);
    let vector = Vector(word.vector());
    Exit::Exception(match (vector, error_code) {
        (Vector::PF, Some(error_code)) => Event::PageFault { address: qualification(vcpu), error_code },
        _ => Event::Exception { vector, error_code },
    })
}
