//! Each cause to its handler, with what the machine has for it.

use super::apic_base::{GuestCpuid, GuestMsrs};
use super::compartment_exit::Inside;
use super::configuration_store::ConfigurationMemory;
use super::{
    Action, Exit, SecondLevelViolation, apic_base, compartment_exit, configuration_store, control_register,
    cpuid, exception, hypercall, init_sipi, invd, local_apic, msr, port, task_switch, triple_fault, xsetbv,
};
use crate::exit::mtrr::{Effect, VirtualMtrrs};
use crate::hypapp::{ViolationAnswer, WriteAnswer};
use crate::machine::{Machine, SECOND_LEVEL};
use crate::memory::guest_physical::GuestPhysical;
use crate::memory::host::{self, GuestFrames};
use crate::memory::second_level::Resolution;
use crate::smp::cpus;
use crate::smp::percpu::PerCpu;
use crate::smp::shootdown;
use crate::vcpu::Vcpu;
use core::sync::atomic::Ordering;
use hw::Unmapped;
use hw::bare::Processor;
use x86::address::{GuestPhysAddr, HostPhysAddr};
use x86::event::Event;
use x86::msr::Msr;
use x86::paging::Rights;

/// Handles one exit. INIT, start-up IPIs and NMIs have been noted by the vendor's part already.
pub(crate) fn dispatch<V: Vcpu>(vcpu: &mut V, cpu: &PerCpu, exit: Exit) -> Action {
    match exit {
        Exit::Cpuid => cpuid(vcpu, cpu),
        Exit::Hypercall => hypercall(vcpu, cpu),
        Exit::ReadMsr { msr } => read_msr(vcpu, cpu, msr),
        Exit::WriteMsr { msr, value } => write_msr(vcpu, cpu, msr, value),
        Exit::SecondLevelViolation(violation) => second_level(vcpu, cpu, violation),
        Exit::Port(access) => port::handle(
            vcpu,
            &GuestPhysical,
            cpu.machine.hypapp,
            &Processor,
            &cpu.machine.policies.power,
            access,
        ),
        Exit::ControlRegister(access) => {
            control_register::handle(vcpu, &GuestPhysical, &cpu.machine.policies.control_register, access)
        }
        Exit::Xsetbv => xsetbv::handle(vcpu, &Processor),
        Exit::TaskSwitch(switch) => task_switch::handle(vcpu, &GuestPhysical, switch),
        Exit::Invd | Exit::Wbinvd => invd::handle(&Processor),
        Exit::UndefinedInstruction => exception::undefined_instruction(),
        Exit::Exception(event) => exception::reflect(event),
        Exit::Init => init(vcpu, cpu),
        Exit::Startup { vector } => startup(vcpu, cpu, vector),
        Exit::TripleFault => triple_fault::handle(),
        Exit::ExternalInterrupt => {
            cpu.machine.hypapp.external_interrupt(vcpu);
            Action::Resume
        }
        Exit::InterruptWindow => {
            cpu.machine.hypapp.interrupt_window(vcpu);
            Action::Resume
        }
        Exit::Nmi | Exit::NmiWindow | Exit::TimeOver => Action::Resume,
    }
}

/// An exit from this CPU's compartment.
pub(crate) fn in_compartment<V: Vcpu>(vcpu: &mut V, cpu: &PerCpu, exit: Exit) -> Inside {
    compartment_exit::handle(vcpu, cpu.machine.hypapp, exit)
}

/// CPUID.
#[inline]
pub(crate) fn cpuid<V: Vcpu>(vcpu: &mut V, cpu: &PerCpu) -> Action {
    let processor = GuestCpuid::new(&Processor, || cpu.is_apic_off());
    cpuid::handle(vcpu, cpu.machine.hypapp, &cpu.machine.policies.cpuid, &processor)
}

/// The hypercall instruction.
#[inline]
pub(crate) fn hypercall<V: Vcpu>(vcpu: &mut V, cpu: &PerCpu) -> Action {
    hypercall::handle(vcpu, &GuestPhysical, cpu.machine.hypapp, cpu.machine.handoff.memory_map())
}

/// RDMSR.
#[inline(never)]
pub(crate) fn read_msr<V: Vcpu>(vcpu: &mut V, cpu: &PerCpu, msr: Msr) -> Action {
    if let Some(value) = cpu.machine.hypapp.read_msr(vcpu, msr) {
        vcpu.registers_mut().set_edx_eax(value);
        return Action::Advance;
    }
    if !VirtualMtrrs::covers(msr) {
        let msrs = GuestMsrs::new(&Processor, cpu.is_apic_off());
        return msr::read(vcpu, msr, &cpu.machine.policies.msr, &msrs);
    }
    match cpu.mtrrs.lock().read(msr) {
        Ok(value) => {
            vcpu.registers_mut().set_edx_eax(value);
            Action::Advance
        }
        Err(_) => Action::Inject(Event::GP0),
    }
}

/// WRMSR of `value`.
pub(crate) fn write_msr<V: Vcpu>(vcpu: &mut V, cpu: &PerCpu, msr: Msr, value: u64) -> Action {
    let (action, effect) = store_msr(vcpu, cpu, msr, value);
    if effect == Effect::Types {
        adopt_mtrrs(cpu);
    }
    action
}

/// The same, but for the memory types that MTRRs give, which [`adopt_mtrrs`] has to change before the guest goes on: once,
/// however many MTRRs were written.
pub(crate) fn store_msr<V: Vcpu>(vcpu: &mut V, cpu: &PerCpu, msr: Msr, value: u64) -> (Action, Effect) {
    if cpu.machine.hypapp.write_msr(vcpu, msr, value) == WriteAnswer::Handled {
        return (Action::Advance, Effect::Unchanged);
    }
    if !VirtualMtrrs::covers(msr) {
        if msr == Msr::IA32_APIC_BASE && cpus::all().len() > 1 {
            return (write_apic_base(cpu, value), Effect::Unchanged);
        }
        let action = msr::write(msr, value, &cpu.machine.policies.msr, &SECOND_LEVEL, &Processor);
        if msr == Msr::IA32_APIC_BASE {
            host::follow_apic();
        }
        return (action, Effect::Unchanged);
    }
    if !cpu.machine.hypapp.allow_mtrr(vcpu, msr, value) {
        return (Action::Inject(Event::GP0), Effect::Unchanged);
    }
    match cpu.mtrrs.lock().write(msr, value) {
        Ok(effect) => (Action::Advance, effect),
        Err(_) => (Action::Inject(Event::GP0), Effect::Unchanged),
    }
}

/// Gives all CPUs' guest the memory types of this CPU's MTRRs.
pub(crate) fn adopt_mtrrs(cpu: &PerCpu) {
    let mtrrs = cpu.mtrrs.lock();
    let flush = SECOND_LEVEL.lock().adopt_mtrrs(mtrrs.registers());
    shootdown::flush(flush);
}

/// WRMSR of IA32_APIC_BASE where other CPUs are called by the local APIC, which hence stays on.
fn write_apic_base(cpu: &PerCpu, value: u64) -> Action {
    let was_off = cpu.is_apic_off();
    let msrs = GuestMsrs::new(&Processor, was_off);
    let action = msr::write(Msr::IA32_APIC_BASE, value, &cpu.machine.policies.msr, &SECOND_LEVEL, &msrs);
    // The registers may be elsewhere now, and are written below.
    host::follow_apic();
    if msrs.is_off() != was_off {
        // Switching it off and on resets it (SDM, "Enabling or Disabling the Local APIC").
        local_apic::reset(&host::local_apic());
        if msrs.is_off() {
            // Before the guest goes on: the hardware's register says that the APIC is on.
            cpu.machine.vendor.intercept_apic_base();
            apic_base::pass_pins(&host::local_apic());
        }
        cpu.set_apic_off(msrs.is_off());
    }
    action
}

fn second_level<V: Vcpu>(vcpu: &mut V, cpu: &PerCpu, violation: SecondLevelViolation) -> Action {
    let mut access = Rights::empty();
    access.set(Rights::READ, violation.is_read);
    access.set(Rights::WRITE, violation.is_write);
    access.set(Rights::EXECUTE, violation.is_fetch);
    // The lock is free again before the flush, which waits for all CPUs: one of them may wait for the lock.
    let resolution = SECOND_LEVEL.lock().violation(cpu.view(), violation.gpa, access);
    match resolution {
        Resolution::Filled => Action::Resume,
        Resolution::Noticed(flush) | Resolution::Reclaimed(flush) => {
            shootdown::flush(flush);
            Action::Resume
        }
        Resolution::Hidden => Action::Inject(Event::GP0),
        Resolution::Guarded => {
            let memory = cpu.machine.vendor.nested_memory().unwrap_or(&GuestPhysical);
            let pages = GuardedPages { machine: cpu.machine };
            // L2's hypervisor may have taken the instruction away since: then it is asked for it, as by the processor.
            configuration_store::handle(vcpu, memory, &pages, violation).unwrap_or_else(|event| {
                let is_asked = cpu.machine.vendor.ask_nested_hypervisor();
                if is_asked { Action::Resume } else { Action::Inject(event) }
            })
        }
        Resolution::Protected(_) => match cpu.machine.hypapp.second_level_violation(vcpu, violation) {
            ViolationAnswer::Resume => Action::Resume,
            ViolationAnswer::Chain => Action::Inject(Event::GP0),
        },
    }
}

/// The guarded pages of this machine.
struct GuardedPages {
    machine: &'static Machine,
}

impl ConfigurationMemory for GuardedPages {
    fn is_kept(&self, at: GuestPhysAddr, width: u8) -> bool {
        // The ranges may lie over each other: any may be the right one.
        let mut functions = self.machine.handoff.ecam.iter().filter_map(|range| range.function_at(at.get()));
        let offset = u16::try_from(at.page_offset()).unwrap_or(u16::MAX);
        functions.any(|function| self.machine.policies.power.kept().touches(function, offset, width.into()))
    }

    fn store(&self, at: GuestPhysAddr, width: u8, value: u64) -> Result<(), Unmapped> {
        GuestFrames::store_to_device(HostPhysAddr::new(at.get()), width, value)
    }
}

fn init<V: Vcpu>(vcpu: &mut V, cpu: &PerCpu) -> Action {
    // While it waits for a start-up IPI a guest's processor keeps an INIT pending, where a bare one that waits
    // is where INIT would put it. Such an INIT comes before the first instruction, and has had its effect. Behind
    // that instruction the processor is stepped out of the guest, and is no longer just started.
    if cpu.is_just_started.swap(false, Ordering::Relaxed) && vcpu.rip() == 0 {
        return Action::Resume;
    }
    let action = init_sipi::init(vcpu);
    if action == Action::Resume {
        local_apic::disable(&host::local_apic());
        // Last: from here on nobody waits for this CPU.
        cpu.waits_for_startup();
    }
    action
}

fn startup<V: Vcpu>(vcpu: &mut V, cpu: &PerCpu, vector: u8) -> Action {
    // Before anything else: from here on a rendezvous waits for this CPU again, and what it missed it drops on its
    // way.
    cpu.runs_again();
    cpu.is_just_started.store(true, Ordering::Relaxed);
    // The rest of what INIT resets, which had to be quick (`init_sipi::init`).
    local_apic::reset(&host::local_apic());
    init_sipi::startup(vcpu, &Processor, &Processor, vector)
}
