//! An exit of L2 handed to L1: what the exit changed comes into VMCS12, and L1's processor gets the host state
//! of VMCS12 (SDM, "VM Exits").

use crate::memory::guest::{GuestMemory, load_pdptes};
use crate::vcpu::PagingState;
use crate::vmx::nested::cr_masks::{self, CR0_OF_L0};
use crate::vmx::nested::entry::checks::EntryFailure;
use crate::vmx::nested::entry::vmcs02::{InheritedByL2, copy, uses_pdptes};
use crate::vmx::nested::event::nmi;
use crate::vmx::nested::preemption_timer;
use crate::vmx::nested::vmcs12::controls::L1Controls;
use crate::vmx::nested::vmcs12::{Dirty, Vmcs12};
use crate::vmx::vcpu::VmxVcpu;
use hw::Vmcs;
use x86::cr::{Cr0, Cr4, Efer, Rflags};
use x86::debug::DR7_RESET;
use x86::event::{Event, Vector};
use x86::vmx::controls::{EntryControls, ExitControls, SecondaryControls};
use x86::vmx::exit_qualification::EptViolationQualification;
use x86::vmx::exit_reason::ExitReason;
use x86::vmx::interruption::{ActivityState, Interruption};
use x86::vmx::vmcs;

/// What an exit tells L1 where it is not what the hardware told the hypervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ExitFacts {
    /// Exit reason.
    pub(crate) reason: ExitReason,
    /// Exit qualification.
    pub(crate) qualification: u64,
    /// VM-exit interruption information.
    pub(crate) interruption: Interruption,
    /// VM-exit interruption error code.
    pub(crate) error_code: u32,
}

impl ExitFacts {
    /// Makes an exit without an event.
    pub(crate) const fn new(reason: ExitReason, qualification: u64) -> Self {
        Self { reason, qualification, interruption: Interruption(0), error_code: 0 }
    }
}

impl From<EntryFailure> for ExitFacts {
    fn from(failure: EntryFailure) -> Self {
        let (reason, qualification) = match failure {
            EntryFailure::GuestState { qualification, .. } => {
                (ExitReason::INVALID_GUEST_STATE, qualification)
            }
            EntryFailure::MsrLoading { entry } => (ExitReason::MSR_LOADING, entry.into()),
        };
        Self::new(reason.of_entry_failure(), qualification)
    }
}

/// Saves the state of L2 that exits change often; marks the rest as newer in `vmcs02`.
pub(crate) fn save_guest_state(vmcs02: &impl Vmcs, vmcs12: &mut Vmcs12) {
    let wanted = L1Controls::of(vmcs12);
    copy!(vmcs02 => vmcs12;
        GUEST_RIP GUEST_RSP GUEST_RFLAGS GUEST_CR3 GUEST_CR4 GUEST_CS_ACCESS_RIGHTS
        GUEST_INTERRUPTIBILITY GUEST_ACTIVITY GUEST_PENDING_DEBUG_EXCEPTIONS);
    let cr0 = cr_masks::cr0_at_exit(vmcs02, vmcs12);
    vmcs12.write(vmcs::GUEST_CR0, cr0);
    let is_long =
        EntryControls::from_bits_retain(vmcs02.read(vmcs::ENTRY_CONTROLS)) & EntryControls::IA32E_MODE_GUEST;
    if is_long != wanted.entry & EntryControls::IA32E_MODE_GUEST {
        // A control that L2 changed: not every hypervisor may enter it again.
        vmcs12.write(vmcs::ENTRY_CONTROLS, (wanted.entry ^ EntryControls::IA32E_MODE_GUEST).bits());
        vmcs12.dirty |= Dirty::CONTROLS;
    }
    if wanted.exit.contains(ExitControls::SAVE_EFER) {
        copy!(vmcs02 => vmcs12; GUEST_EFER);
    }
    if wanted.exit.contains(ExitControls::SAVE_DEBUG_CONTROLS) {
        copy!(vmcs02 => vmcs12; GUEST_DR7 GUEST_DEBUGCTL);
    }
    if wanted.exit.contains(ExitControls::SAVE_PAT) {
        copy!(vmcs02 => vmcs12; GUEST_PAT);
    }
    preemption_timer::save(vmcs02, vmcs12, wanted.exit, wanted.pin_based);
    if wanted.secondary.contains(SecondaryControls::VIRTUAL_INTERRUPT_DELIVERY) {
        copy!(vmcs02 => vmcs12; GUEST_INTERRUPT_STATUS);
    }
    if wanted.has_ept() && uses_pdptes(vmcs12) {
        copy!(vmcs02 => vmcs12; GUEST_PDPTE0 GUEST_PDPTE1 GUEST_PDPTE2 GUEST_PDPTE3);
    }
    // The rest is fetched from VMCS02 only when L1 asks for it, which it seldom does.
    vmcs12.is_stale = true;
}

/// Takes over what the hardware tells of the exit of L2, the flags in its reason too.
pub(crate) fn save_exit(vmcs02: &impl Vmcs, vmcs12: &mut Vmcs12, reason: ExitReason) {
    vmcs12.write(vmcs::EXIT_REASON, reason.0);
    copy!(vmcs02 => vmcs12;
        EXIT_QUALIFICATION GUEST_LINEAR_ADDRESS EXIT_INTERRUPTION_INFORMATION IDT_VECTORING_INFORMATION
        EXIT_INSTRUCTION_LENGTH EXIT_INSTRUCTION_INFORMATION);
    if Interruption(vmcs12.read(vmcs::EXIT_INTERRUPTION_INFORMATION)).has_error_code() {
        copy!(vmcs02 => vmcs12; EXIT_INTERRUPTION_ERROR_CODE);
    }
    let vectoring = Interruption(vmcs12.read(vmcs::IDT_VECTORING_INFORMATION));
    if vectoring.is_valid() {
        let injected = Interruption(vmcs12.read(vmcs::ENTRY_INTERRUPTION_INFORMATION));
        // Before the injection is cleared, by which an NMI is told from an exception with its vector.
        vmcs12.write(vmcs::IDT_VECTORING_INFORMATION, nmi::from_hardware(vectoring, injected).0);
        copy!(vmcs02 => vmcs12; IDT_VECTORING_ERROR_CODE);
    }
    if matches!(reason.without_flags(), ExitReason::EPT_VIOLATION | ExitReason::EPT_MISCONFIGURATION) {
        copy!(vmcs02 => vmcs12; GUEST_PHYSICAL_ADDRESS);
    }
    if reason.without_flags() == ExitReason::EPT_VIOLATION {
        // Advanced VM-exit information for EPT violations is not offered.
        let qualification = EptViolationQualification(vmcs12.read(vmcs::EXIT_QUALIFICATION));
        vmcs12.write(vmcs::EXIT_QUALIFICATION, qualification.without_advanced().0);
    }
    clear_injection(vmcs12);
}

/// Writes `facts` as the exit. What was being delivered is as the hardware has it, but for a double and a triple fault,
/// whose exits interrupt nothing (SDM, "Information for VM Exits During Event Delivery").
pub(crate) fn save_facts(vmcs12: &mut Vmcs12, facts: &ExitFacts) {
    vmcs12.write(vmcs::EXIT_REASON, facts.reason.0);
    vmcs12.write(vmcs::EXIT_QUALIFICATION, facts.qualification);
    vmcs12.write(vmcs::EXIT_INTERRUPTION_INFORMATION, facts.interruption.0);
    vmcs12.write(vmcs::EXIT_INTERRUPTION_ERROR_CODE, facts.error_code);
    if facts.reason.is_entry_failure() {
        return;
    }
    let is_double_fault = facts.interruption.is_valid() && facts.interruption.vector() == Vector::DF.0;
    if is_double_fault || facts.reason == ExitReason::TRIPLE_FAULT {
        vmcs12.write(vmcs::IDT_VECTORING_INFORMATION, 0);
    }
    clear_injection(vmcs12);
}

/// Writes `facts` as an exit in whose stead the hardware did not enter: nothing was being delivered, and what VMCS02 has of
/// an earlier exit, of whichever L2, is none of its.
pub(crate) fn save_early_exit(vmcs12: &mut Vmcs12, facts: &ExitFacts) {
    save_facts(vmcs12, facts);
    vmcs12.write(vmcs::IDT_VECTORING_INFORMATION, 0);
}

/// An exit clears the valid bit, so that the event is not injected again.
fn clear_injection(vmcs12: &mut Vmcs12) {
    let event = vmcs12.read(vmcs::ENTRY_INTERRUPTION_INFORMATION);
    if Interruption(event).is_valid() {
        vmcs12.write(vmcs::ENTRY_INTERRUPTION_INFORMATION, event & 0x7fff_ffff);
    }
}

/// What L1 inherits from L2 at an exit unless VM-exit controls load it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InheritedByL1 {
    cr0: u64,
    efer: Efer,
    pat: u64,
    /// SSP, where the processor has another still: the entry that was to load it did not come to pass.
    pub(crate) ssp: Option<u64>,
}

impl From<&InheritedByL2> for InheritedByL1 {
    fn from(l1: &InheritedByL2) -> Self {
        Self { cr0: l1.cr0.bits(), efer: l1.efer, pat: l1.pat, ssp: None }
    }
}

impl InheritedByL1 {
    /// Returns the state of L2 at its exit.
    pub(crate) fn of(vmcs02: &impl Vmcs, vmcs12: &Vmcs12) -> Self {
        Self {
            cr0: cr_masks::cr0_at_exit(vmcs02, vmcs12),
            efer: Efer::from_bits_retain(vmcs02.read(vmcs::GUEST_EFER)),
            pat: vmcs02.read(vmcs::GUEST_PAT),
            ssp: None,
        }
    }
}

/// Loads the host state of VMCS12 into L1's processor (SDM, "Loading Host State").
///
/// # Errors
///
/// PDPTEs that cannot be loaded: a VMX abort.
pub(crate) fn load_host_state<V: Vmcs, M: GuestMemory>(
    l1: &mut VmxVcpu<'_, V>,
    vmcs12: &Vmcs12,
    inherited: &InheritedByL1,
    memory: &M,
) -> Result<(), Event> {
    let exit = L1Controls::of(vmcs12).exit;
    let is_long = exit.contains(ExitControls::HOST_ADDRESS_SPACE_SIZE);
    load_control_registers(l1, vmcs12, exit, inherited);
    load_segments(&mut l1.vmcs, vmcs12, is_long);
    l1.vmcs.write(vmcs::GUEST_RIP, vmcs12.read(vmcs::HOST_RIP));
    l1.vmcs.write(vmcs::GUEST_RSP, vmcs12.read(vmcs::HOST_RSP));
    l1.vmcs.write(vmcs::GUEST_RFLAGS, Rflags::RESERVED1.bits());
    l1.vmcs.write(vmcs::GUEST_SYSENTER_CS, vmcs12.read(vmcs::HOST_SYSENTER_CS));
    l1.vmcs.write(vmcs::GUEST_SYSENTER_ESP, vmcs12.read(vmcs::HOST_SYSENTER_ESP));
    l1.vmcs.write(vmcs::GUEST_SYSENTER_EIP, vmcs12.read(vmcs::HOST_SYSENTER_EIP));
    l1.vmcs.write(vmcs::GUEST_DR7, DR7_RESET);
    l1.vmcs.write(vmcs::GUEST_DEBUGCTL, 0);
    l1.vmcs.write(vmcs::GUEST_PENDING_DEBUG_EXCEPTIONS, 0);
    l1.vmcs.write(vmcs::GUEST_INTERRUPTIBILITY, 0);
    l1.vmcs.write(vmcs::GUEST_ACTIVITY, ActivityState::ACTIVE.0);
    // After CR0, CR3 and CR4, which say whether there are PDPTEs and where.
    if !is_long && l1.cr0().contains(Cr0::PG) && l1.cr4().contains(Cr4::PAE) {
        let pdptes = load_pdptes(memory, l1.cr3())?;
        l1.set_pdptes(pdptes);
    }
    Ok(())
}

/// Returns whether L1 is where an exit of L2 that `vmcs12` tells of left it: it has executed nothing since.
pub(crate) fn is_as_loaded(vmcs01: &impl Vmcs, vmcs12: &Vmcs12) -> bool {
    vmcs01.read(vmcs::GUEST_RIP) == vmcs12.read(vmcs::HOST_RIP)
        && vmcs01.read(vmcs::GUEST_RSP) == vmcs12.read(vmcs::HOST_RSP)
        && vmcs01.read(vmcs::GUEST_RFLAGS) == Rflags::RESERVED1.bits()
}

fn load_control_registers<V: Vmcs>(
    l1: &mut VmxVcpu<'_, V>,
    vmcs12: &Vmcs12,
    exit: ExitControls,
    inherited: &InheritedByL1,
) {
    let is_long = exit.contains(ExitControls::HOST_ADDRESS_SPACE_SIZE);
    let cr0 = vmcs12.read(vmcs::HOST_CR0) & !CR0_OF_L0.bits() | inherited.cr0 & CR0_OF_L0.bits();
    l1.set_cr0(Cr0::from_bits_retain(cr0));
    let mut cr4 = Cr4::from_bits_retain(vmcs12.read(vmcs::HOST_CR4));
    if is_long {
        cr4 |= Cr4::PAE;
    } else {
        cr4 -= Cr4::PCIDE;
    }
    l1.set_cr4(cr4);
    l1.set_cr3(vmcs12.read(vmcs::HOST_CR3));
    let efer = if exit.contains(ExitControls::LOAD_EFER) {
        Efer::from_bits_retain(vmcs12.read(vmcs::HOST_EFER))
    } else {
        let mut efer = inherited.efer;
        efer.set(Efer::LME, is_long);
        efer.set(Efer::LMA, is_long);
        efer
    };
    l1.set_efer(efer);
    let pat = if exit.contains(ExitControls::LOAD_PAT) { vmcs12.read(vmcs::HOST_PAT) } else { inherited.pat };
    l1.vmcs.write(vmcs::GUEST_PAT, pat);
}

/// Access rights after an exit (SDM, "Loading Host Segment and Descriptor-Table Registers").
mod rights {
    pub(crate) const CODE64: u32 = 0xa09b;
    pub(crate) const CODE32: u32 = 0xc09b;
    pub(crate) const DATA: u32 = 0xc093;
    pub(crate) const TASK: u32 = 0x8b;
    pub(crate) const UNUSABLE: u32 = x86::segment::AccessRights::UNUSABLE.bits();
}

fn load_segments(to: &mut impl Vmcs, vmcs12: &Vmcs12, is_long: bool) {
    const NO_LIMIT: u32 = 0xffff_ffff;
    const TASK_LIMIT: u32 = 0x67;
    to.write(vmcs::GUEST_CS_SELECTOR, vmcs12.read(vmcs::HOST_CS_SELECTOR));
    to.write(vmcs::GUEST_CS_BASE, 0);
    to.write(vmcs::GUEST_CS_LIMIT, NO_LIMIT);
    to.write(vmcs::GUEST_CS_ACCESS_RIGHTS, if is_long { rights::CODE64 } else { rights::CODE32 });
    macro_rules! data {
        ($($host:ident $selector:ident $base:ident $limit:ident $rights:ident $value:expr;)*) => {$(
            let selector = vmcs12.read(vmcs::$host);
            to.write(vmcs::$selector, selector);
            to.write(vmcs::$base, $value);
            to.write(vmcs::$limit, NO_LIMIT);
            to.write(vmcs::$rights, rights::DATA | if selector == 0 { rights::UNUSABLE } else { 0 });
        )*};
    }
    data! {
        HOST_ES_SELECTOR GUEST_ES_SELECTOR GUEST_ES_BASE GUEST_ES_LIMIT GUEST_ES_ACCESS_RIGHTS 0;
        HOST_SS_SELECTOR GUEST_SS_SELECTOR GUEST_SS_BASE GUEST_SS_LIMIT GUEST_SS_ACCESS_RIGHTS 0;
        HOST_DS_SELECTOR GUEST_DS_SELECTOR GUEST_DS_BASE GUEST_DS_LIMIT GUEST_DS_ACCESS_RIGHTS 0;
        HOST_FS_SELECTOR GUEST_FS_SELECTOR GUEST_FS_BASE GUEST_FS_LIMIT GUEST_FS_ACCESS_RIGHTS
            vmcs12.read(vmcs::HOST_FS_BASE);
        HOST_GS_SELECTOR GUEST_GS_SELECTOR GUEST_GS_BASE GUEST_GS_LIMIT GUEST_GS_ACCESS_RIGHTS
            vmcs12.read(vmcs::HOST_GS_BASE);
    }
    to.write(vmcs::GUEST_TR_SELECTOR, vmcs12.read(vmcs::HOST_TR_SELECTOR));
    to.write(vmcs::GUEST_TR_BASE, vmcs12.read(vmcs::HOST_TR_BASE));
    to.write(vmcs::GUEST_TR_LIMIT, TASK_LIMIT);
    to.write(vmcs::GUEST_TR_ACCESS_RIGHTS, rights::TASK);
    to.write(vmcs::GUEST_LDTR_SELECTOR, 0);
    to.write(vmcs::GUEST_LDTR_ACCESS_RIGHTS, rights::UNUSABLE);
    to.write(vmcs::GUEST_GDTR_BASE, vmcs12.read(vmcs::HOST_GDTR_BASE));
    to.write(vmcs::GUEST_GDTR_LIMIT, 0xffff);
    to.write(vmcs::GUEST_IDTR_BASE, vmcs12.read(vmcs::HOST_IDTR_BASE));
    to.write(vmcs::GUEST_IDTR_LIMIT, 0xffff);
}

#[cfg(test)]
mod tests {
    use super::is_as_loaded;
    use crate::vmx::nested::vmcs12::Vmcs12;
    use hw::sim::SimVmcs;
    use x86::vmx::vmcs;

    #[test]
    fn a_processor_that_went_on_is_not_as_it_was_loaded() {
        let mut vmcs12 = Vmcs12::new();
        vmcs12.write(vmcs::HOST_RIP, 0x1000);
        vmcs12.write(vmcs::HOST_RSP, 0x2000);
        let at = |rip, rsp, flags| {
            let mut vmcs01 = SimVmcs::default();
            vmcs01.write(vmcs::GUEST_RIP, rip);
            vmcs01.write(vmcs::GUEST_RSP, rsp);
            vmcs01.write(vmcs::GUEST_RFLAGS, flags);
            is_as_loaded(&vmcs01, &vmcs12)
        };
        assert!(at(0x1000, 0x2000, 2));
        assert!(!at(0x1001, 0x2000, 2) && !at(0x1000, 0x1ff8, 2) && !at(0x1000, 0x2000, 0x46));
    }
}
