//! Exits as the rest of the hypervisor understands them (SDM, "Basic VM-Exit Information").

use super::vcpu::VmxVcpu;
use crate::exit::{
    ControlRegisterAccess, Exit, PortAccess, SecondLevelViolation, StringPort, TaskSwitch, TaskSwitchSource,
};
use crate::vcpu::RegisterState;
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

/// Returns the cause of an exit; `None` where the controls that we set cannot lead to it.
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
        ExitReason::PREEMPTION_TIMER => Exit::TimeOver,
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
        // Instructions that no control of ours asks for and that exit all the same on the processors that have
        // them, and whatever comes after: an event has always had a control.
        newer if newer.basic() >= ExitReason::SEAMCALL.basic() => Exit::UndefinedInstruction,
        _ => return None,
    })
}

/// Returns the register that RDMSR or WRMSR names.
#[expect(clippy::cast_possible_truncation, reason = "RDMSR and WRMSR look at ECX")]
pub(super) fn msr<V: Vmcs>(vcpu: &VmxVcpu<'_, V>) -> Msr {
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

pub(super) fn violation<V: Vmcs>(vcpu: &VmxVcpu<'_, V>) -> SecondLevelViolation {
    let facts = EptViolationQualification(qualification(vcpu));
    let gla =
        facts.has_linear_address().then(|| GuestLinearAddr::new(vcpu.vmcs.read(vmcs::GUEST_LINEAR_ADDRESS)));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vcpu::Registers;
    use hw::sim::SimVmcs;

    /// Decodes an exit with this exit qualification, and what else `set` writes.
    fn decoded(reason: ExitReason, qualification: u64, set: impl FnOnce(&mut SimVmcs)) -> Option<Exit> {
        let mut vmcs = SimVmcs::default();
        vmcs.write(vmcs::EXIT_QUALIFICATION, qualification);
        set(&mut vmcs);
        let mut registers = Registers::default();
        registers.set_rax(0xffff_ffff_0000_0001);
        registers.set_rcx(0xffff_ffff_0000_0079);
        registers.set_rdx(0xffff_ffff_0000_0002);
        decode(&VmxVcpu::new(vmcs, &mut registers, 0), reason)
    }

    #[test]
    fn msr_accesses_have_the_lower_halves_of_their_registers() {
        let msr = Msr(0x79);
        assert_eq!(decoded(ExitReason::RDMSR, 0, |_| ()), Some(Exit::ReadMsr { msr }));
        let write = Exit::WriteMsr { msr, value: 0x2_0000_0001 };
        assert_eq!(decoded(ExitReason::WRMSR, 0, |_| ()), Some(write));
    }

    #[test]
    fn control_register_accesses_of_all_four_kinds() {
        let decoded = |facts| match decoded(ExitReason::CONTROL_REGISTER, facts, |_| ()) {
            Some(Exit::ControlRegister(access)) => access,
            other => panic!("{other:?}"),
        };
        let (control_register, register) = (4, 15);
        assert_eq!(decoded(0xf04), ControlRegisterAccess::MovTo { control_register, register });
        assert_eq!(decoded(0xf14), ControlRegisterAccess::MovFrom { control_register, register });
        assert_eq!(decoded(0x20), ControlRegisterAccess::Clts);
        assert_eq!(decoded(0xbeef_0030), ControlRegisterAccess::Lmsw { source: 0xbeef });
    }

    #[test]
    fn port_instructions_have_size_direction_and_string_facts() {
        let port = |facts, information| {
            let exit = decoded(ExitReason::IO_INSTRUCTION, facts, |vmcs| {
                vmcs.write(vmcs::EXIT_INSTRUCTION_INFORMATION, information);
            });
            match exit {
                Some(Exit::Port(access)) => Some(access),
                _ => None,
            }
        };
        let plain = PortAccess { port: 0xcf9, width: PortWidth::Byte, is_input: false, string: None };
        assert_eq!(port(0x0cf9_0000, 0), Some(plain));
        assert_eq!(
            port(0x0064_0009, 0),
            Some(PortAccess { port: 0x64, width: PortWidth::Word, is_input: true, ..plain })
        );
        let string = |access: Option<PortAccess>| access.and_then(|access| access.string);
        // REP OUTSD with 64-bit addresses and an FS override; INSB with 16-bit ones, which is always ES.
        let outs = StringPort { is_repeated: true, address_bits: 64, segment: SegmentRegister::Fs };
        assert_eq!(string(port(0x0064_0033, 2 << 7 | 4 << 15)), Some(outs));
        let ins = StringPort { is_repeated: false, address_bits: 16, segment: SegmentRegister::Es };
        assert_eq!(string(port(0x0064_0018, 3 << 15)), Some(ins));
        assert_eq!(port(0x0064_0002, 0), None);
    }

    #[test]
    fn a_violation_in_a_page_walk_is_told_from_the_access_itself() {
        let violation = |facts| match decoded(ExitReason::EPT_VIOLATION, facts, |vmcs| {
            vmcs.write(vmcs::GUEST_PHYSICAL_ADDRESS, 0x1234);
            vmcs.write(vmcs::GUEST_LINEAR_ADDRESS, 0x5678);
        }) {
            Some(Exit::SecondLevelViolation(violation)) => violation,
            other => panic!("{other:?}"),
        };
        let write = violation(0x182);
        assert_eq!((write.gpa.get(), write.gla.map(GuestLinearAddr::get)), (0x1234, Some(0x5678)));
        assert_eq!(
            (write.is_read, write.is_write, write.is_fetch, write.is_walk),
            (false, true, false, false)
        );
        assert!(violation(0x081).is_walk);
        assert_eq!(violation(0x004).gla, None);
    }

    #[test]
    fn a_task_switch_by_an_event_carries_the_events_error_code() {
        let source = |facts, vectoring: Interruption| {
            let exit = decoded(ExitReason::TASK_SWITCH, facts, |vmcs| {
                vmcs.write(vmcs::IDT_VECTORING_INFORMATION, vectoring.0);
                vmcs.write(vmcs::IDT_VECTORING_ERROR_CODE, 0x50);
            });
            match exit {
                Some(Exit::TaskSwitch(switch)) => switch,
                other => panic!("{other:?}"),
            }
        };
        let none = Interruption(0);
        let selector = 0x48;
        for (bits, source_of) in
            [TaskSwitchSource::Call, TaskSwitchSource::Iret, TaskSwitchSource::Jump].into_iter().enumerate()
        {
            assert_eq!(source((bits as u64) << 30 | 0x48, none), TaskSwitch { selector, source: source_of });
        }
        let fault = Interruption::new(11, InterruptionType::HARDWARE_EXCEPTION, true);
        assert_eq!(source(3 << 30, fault).source, TaskSwitchSource::Event { error_code: Some(0x50) });
        let interrupt = Interruption::new(0x20, InterruptionType::EXTERNAL, false);
        assert_eq!(source(3 << 30, interrupt).source, TaskSwitchSource::Event { error_code: None });
        let int = Interruption::new(0x20, InterruptionType::SOFTWARE_INTERRUPT, false);
        assert_eq!(source(3 << 30, int).source, TaskSwitchSource::SoftwareInterrupt);
    }

    #[test]
    fn an_nmi_is_told_from_the_exceptions_that_share_its_exit() {
        let exit = |word: Interruption| {
            decoded(ExitReason::EXCEPTION_OR_NMI, 0x7000, |vmcs| {
                vmcs.write(vmcs::EXIT_INTERRUPTION_INFORMATION, word.0);
                vmcs.write(vmcs::EXIT_INTERRUPTION_ERROR_CODE, 6);
            })
        };
        assert_eq!(exit(Interruption::new(2, InterruptionType::NMI, false)), Some(Exit::Nmi));
        let fault = Interruption::new(14, InterruptionType::HARDWARE_EXCEPTION, true);
        let event = Event::PageFault { address: 0x7000, error_code: 6 };
        assert_eq!(exit(fault), Some(Exit::Exception(event)));
        let undefined = Interruption::new(6, InterruptionType::HARDWARE_EXCEPTION, false);
        assert_eq!(exit(undefined), Some(Exit::Exception(Event::UD)));
    }

    #[test]
    fn absent_instructions_are_undefined_and_others_are_not_ours() {
        use ExitReason as Reason;
        for reason in [Reason::VMXON, Reason::VMLAUNCH, Reason::INVEPT, Reason::GETSEC, Reason::SEAMCALL] {
            assert_eq!(decoded(reason, 0, |_| ()), Some(Exit::UndefinedInstruction));
        }
        for newer in [Reason::RDMSR_IMMEDIATE, Reason(0x3ff), Reason(0xffff)] {
            assert_eq!(decoded(newer, 0, |_| ()), Some(Exit::UndefinedInstruction));
        }
        assert_eq!(decoded(ExitReason::EPT_MISCONFIGURATION, 0, |_| ()), None);
        let startup = decoded(ExitReason::STARTUP_IPI, 0x9a, |_| ());
        assert_eq!(startup, Some(Exit::Startup { vector: 0x9a }));
    }
}
