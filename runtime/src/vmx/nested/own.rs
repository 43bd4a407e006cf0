//! Exits of L2 that are the hypervisor's own, by the handlers that serve L1, over L2's memory.

use super::cpu;
use super::entry;
use super::ept02::machine as ept02;
use super::exit::L2Vcpu;
use super::merge::Wanted;
use crate::exit::{Action, Exit, control_register, dispatch, port};
use crate::machine;
use crate::memory::guest::{GuestMemory, Refused};
use crate::memory::guest_physical::GuestPhysical;
use crate::smp::percpu::PerCpu;
use crate::vmx::decode;
use hw::Vmcs;
use hw::bare::Processor;
use x86::address::GuestPhysAddr;
use x86::event::Event;
use x86::paging::Rights;
use x86::vmx::ept::EptPointer;
use x86::vmx::exit_reason::ExitReason;
use x86::vmx::vmcs;

/// Handles the exit; `None` where no control of the hypervisor's leads to it.
pub(super) fn handle(vcpu: &mut L2Vcpu<'_>, cpu: &'static PerCpu, reason: ExitReason) -> Option<Action> {
    let memory = L2Memory::of(cpu);
    Some(match decode::decode(vcpu, reason)? {
        Exit::Port(access) => {
            port::handle(vcpu, &memory, machine::hypapp(), &Processor, machine::power(), access)
        }
        Exit::ControlRegister(access) => {
            control_register::handle(vcpu, &memory, machine::control_register_policy(), access)
        }
        // L2 finds the VMX MSRs that L1 finds.
        exit @ Exit::ReadMsr { .. } => match dispatch::dispatch(vcpu, cpu, exit) {
            refusal @ Action::Inject(Event::GP0) => entry::read_msr(vcpu, refusal),
            action => action,
        },
        // None of these touches memory of its guest.
        exit @ (Exit::WriteMsr { .. }
        | Exit::Exception(_)
        | Exit::ExternalInterrupt
        | Exit::InterruptWindow) => dispatch::dispatch(vcpu, cpu, exit),
        _ => return None,
    })
}

/// L2's memory: what L1's tables make of L1's.
#[derive(Clone, Copy, Debug)]
pub(super) struct L2Memory {
    /// `None` where L1 has no tables for it.
    pointer: Option<EptPointer>,
}

impl L2Memory {
    /// The memory of the L2 that runs on `cpu`, which executes this.
    pub(super) fn of(cpu: &PerCpu) -> Self {
        let pointer = cpu::of(cpu).and_then(|state| {
            let vmcs12 = &state.nested.vmcs12;
            Wanted::of(vmcs12).has_ept().then(|| EptPointer(vmcs12.read(vmcs::EPT_POINTER)))
        });
        Self { pointer }
    }

    fn reach(self, gpa: GuestPhysAddr, access: Rights) -> Result<GuestPhysAddr, Refused> {
        match self.pointer {
            Some(pointer) => ept02::translate_l2(pointer, gpa, access).ok_or(Refused),
            None => Ok(gpa),
        }
    }
}

impl GuestMemory for L2Memory {
    fn read(&self, gpa: GuestPhysAddr, bytes: &mut [u8]) -> Result<(), Refused> {
        GuestPhysical.read(self.reach(gpa, Rights::READ)?, bytes)
    }

    fn write(&self, gpa: GuestPhysAddr, bytes: &[u8]) -> Result<(), Refused> {
        GuestPhysical.write(self.reach(gpa, Rights::WRITE)?, bytes)
    }

    fn read_words(&self, gpa: GuestPhysAddr, words: &mut [u64]) -> Result<(), Refused> {
        GuestPhysical.read_words(self.reach(gpa, Rights::READ)?, words)
    }

    fn compare_exchange(&self, gpa: GuestPhysAddr, current: u64, new: u64) -> Result<bool, Refused> {
        GuestPhysical.compare_exchange(self.reach(gpa, Rights::READ | Rights::WRITE)?, current, new)
    }

    fn physical_address_bits(&self) -> u8 {
        GuestPhysical.physical_address_bits()
    }

    fn has_1gib_pages(&self) -> bool {
        GuestPhysical.has_1gib_pages()
    }
}
