//! Exits of L2 that are the hypervisor's own, by the handlers that serve L1, over L2's memory.

use super::cpu;
use super::entry;
use super::ept02::access::Access;
use super::ept02::machine as ept02;
use super::exit::L2Vcpu;
use super::instruction::linked::{self, L2};
use super::merge::Wanted;
use crate::exit::{Action, Exit, control_register, dispatch, port};
use crate::machine;
use crate::memory::guest::{GuestMemory, Refused};
use crate::memory::guest_physical::GuestPhysical;
use crate::smp::percpu::PerCpu;
use crate::vmx::decode;
use core::cell::Cell;
use hw::Vmcs;
use hw::bare::Processor;
use x86::address::GuestPhysAddr;
use x86::event::Event;
use x86::paging::Rights;
use x86::vmx::ept::EptPointer;
use x86::vmx::exit_qualification::EptViolationQualification;
use x86::vmx::exit_reason::ExitReason;
use x86::vmx::vmcs;

/// Handles the exit; `None` where no control of the hypervisor's leads to it. Where L1's tables forbid an access
/// to `memory` on the way, that has it.
pub(super) fn handle(
    vcpu: &mut L2Vcpu<'_>,
    cpu: &'static PerCpu,
    reason: ExitReason,
    memory: &L2Memory,
) -> Option<Action> {
    Some(match decode::decode(vcpu, reason)? {
        Exit::Port(access) => {
            port::handle(vcpu, memory, machine::hypapp(), &Processor, machine::power(), access)
        }
        Exit::ControlRegister(access) => {
            control_register::handle(vcpu, memory, machine::control_register_policy(), access)
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

/// Carries out VMREAD or VMWRITE of the VMCS that L1 linked for L2.
pub(super) fn access_linked_vmcs(
    vcpu: &mut L2Vcpu<'_>,
    cpu: &PerCpu,
    reason: ExitReason,
    memory: &L2Memory,
) -> Option<Action> {
    let (mut state, facts) = (cpu::of(cpu)?, cpu::facts()?);
    let mut l2 = L2 { vcpu, memory, l1_memory: &GuestPhysical, facts };
    Some(linked::execute(&mut state.nested, &mut l2, reason))
}

/// L2's memory: what L1's tables make of L1's.
#[derive(Debug)]
pub(super) struct L2Memory {
    /// `None` where L1 has no tables for it.
    pointer: Option<EptPointer>,
    denied: Cell<Option<Access>>,
}

impl L2Memory {
    /// The memory of the L2 that runs on `cpu`, which executes this.
    pub(super) fn of(cpu: &PerCpu) -> Self {
        let pointer = cpu::of(cpu).and_then(|state| {
            let vmcs12 = &state.nested.vmcs12;
            Wanted::of(vmcs12).has_ept().then(|| EptPointer(vmcs12.read(vmcs::EPT_POINTER)))
        });
        Self { pointer, denied: Cell::new(None) }
    }

    /// The first access that L1's tables did not allow.
    pub(super) fn denied(&self) -> Option<Access> {
        self.denied.get()
    }

    fn reach(&self, gpa: GuestPhysAddr, access: Rights) -> Result<GuestPhysAddr, Refused> {
        let qualification = EptViolationQualification::of_linear_address(access, true);
        self.translate(gpa, access, qualification)
    }

    /// Reaches an entry of L2's own tables: with accessed and dirty flags in L1's tables that counts as a write.
    fn reach_entry(&self, gpa: GuestPhysAddr) -> Result<GuestPhysAddr, Refused> {
        let has_flags = self.pointer.is_some_and(EptPointer::has_accessed_dirty);
        let access = if has_flags { Rights::READ | Rights::WRITE } else { Rights::READ };
        self.translate(gpa, access, EptViolationQualification::of_linear_address(access, false))
    }

    fn translate(
        &self,
        gpa: GuestPhysAddr,
        access: Rights,
        qualification: EptViolationQualification,
    ) -> Result<GuestPhysAddr, Refused> {
        let Some(pointer) = self.pointer else { return Ok(gpa) };
        let reached = ept02::translate_l2(pointer, gpa, access);
        if reached.is_none() && self.denied.get().is_none() {
            self.denied.set(Some(Access { gpa, qualification: qualification.0 }));
        }
        reached.ok_or(Refused)
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
        GuestPhysical.read_words(self.reach_entry(gpa)?, words)
    }

    fn compare_exchange(&self, gpa: GuestPhysAddr, current: u64, new: u64) -> Result<bool, Refused> {
        let qualification = EptViolationQualification::of_linear_address(Rights::READ | Rights::WRITE, false);
        let at = self.translate(gpa, Rights::READ | Rights::WRITE, qualification)?;
        GuestPhysical.compare_exchange(at, current, new)
    }

    fn physical_address_bits(&self) -> u8 {
        GuestPhysical.physical_address_bits()
    }

    fn has_1gib_pages(&self) -> bool {
        GuestPhysical.has_1gib_pages()
    }
}
