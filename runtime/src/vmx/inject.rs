//! Events for the guest: injected, delivered again, or combined (SDM, "VM-Entry Controls for Event
//! Injection"; "Interrupt 8-Double Fault Exception (#DF)").

use super::switch;
use super::vcpu::VmxVcpu;
use crate::vcpu::{PagingState, RegisterState};
use hw::Vmcs;
use hw::bare::guest_registers;
use x86::cr::{Cr0, Rflags};
use x86::debug::PendingDebugExceptions;
use x86::event::{Event, Vector};
use x86::vmx::controls::PrimaryControls;
use x86::vmx::interruption::{ActivityState, Interruptibility, Interruption, InterruptionType};
use x86::vmx::vmcs;

/// The guest could not take the event: its processor would have shut down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shutdown;

impl<V: Vmcs> VmxVcpu<'_, V> {
    /// Injects `event`, whatever was being delivered to the guest.
    pub(super) fn take(&mut self, event: Event) {
        match event {
            Event::Nmi => nmi(self),
            Event::PageFault { address, error_code } => {
                guest_registers::set_cr2(address);
                exception(self, Vector::PF, Some(error_code));
            }
            Event::Exception { vector, error_code } => exception(self, vector, error_code),
        }
    }
}

/// Combines `event`, raised while `vectoring` was being delivered, as the processor would.
pub(super) fn combine(vectoring: Interruption, event: Event) -> Result<Event, Shutdown> {
    let second = match event {
        Event::Exception { vector, .. } => vector,
        Event::PageFault { .. } => Vector::PF,
        Event::Nmi => return Ok(event),
    };
    if !vectoring.is_valid() || vectoring.kind() != InterruptionType::HARDWARE_EXCEPTION {
        return Ok(event);
    }
    let first = Vector(vectoring.vector());
    if first == Vector::DF {
        return Err(Shutdown);
    }
    let contributory =
        |v: Vector| matches!(v, Vector::DE | Vector::TS | Vector::NP | Vector::SS | Vector::GP);
    let is_double = contributory(first) && contributory(second)
        || first == Vector::PF && (contributory(second) || second == Vector::PF);
    if is_double { Ok(Event::Exception { vector: Vector::DF, error_code: Some(0) }) } else { Ok(event) }
}

/// Delivers again what an exit interrupted; true where there was something.
pub(super) fn deliver_again<V: Vmcs>(vcpu: &mut VmxVcpu<'_, V>) -> bool {
    let vectoring = Interruption(vcpu.vmcs.read(vmcs::IDT_VECTORING_INFORMATION));
    if !vectoring.is_valid() {
        return false;
    }
    if vectoring.kind() == InterruptionType::NMI {
        // Its delivery had begun to block NMIs, and the entry would refuse to inject into that.
        let state = vcpu.interruptibility() & !Interruptibility::BLOCKING_BY_NMI;
        vcpu.set_interruptibility(state);
    }
    if vectoring.has_error_code() {
        let code = vcpu.vmcs.read(vmcs::IDT_VECTORING_ERROR_CODE);
        vcpu.vmcs.write(vmcs::ENTRY_EXCEPTION_ERROR_CODE, code);
    }
    if vectoring.is_software() {
        let length = vcpu.vmcs.read(vmcs::EXIT_INSTRUCTION_LENGTH);
        vcpu.vmcs.write(vmcs::ENTRY_INSTRUCTION_LENGTH, length);
    }
    vcpu.vmcs.write(vmcs::ENTRY_INTERRUPTION_INFORMATION, vectoring.to_entry().0);
    true
}

/// Gives the guest an NMI now if it can take one, else as soon as it can. As in hardware, one NMI is
/// remembered while NMIs are blocked, and no more.
pub(super) fn nmi<V: Vmcs>(vcpu: &mut VmxVcpu<'_, V>) {
    let blocking = Interruptibility::BLOCKING_BY_NMI
        | Interruptibility::BLOCKING_BY_MOV_SS
        | Interruptibility::BLOCKING_BY_STI;
    let pending = Interruption(vcpu.vmcs.read(vmcs::ENTRY_INTERRUPTION_INFORMATION));
    if vcpu.interruptibility().intersects(blocking) || pending.is_valid() || has_debug_exception(vcpu) {
        set_nmi_window(vcpu, true);
        return;
    }
    let word = Interruption::new(Vector::NMI.0, InterruptionType::NMI, false);
    vcpu.vmcs.write(vmcs::ENTRY_INTERRUPTION_INFORMATION, word.0);
}

/// Returns whether a debug exception comes first, which an entry that injects anything else drops (SDM, "Delivery of
/// Pending Debug Exceptions after VM Entry"). Only an active processor is sure to come to the window behind it.
fn has_debug_exception<V: Vmcs>(vcpu: &VmxVcpu<'_, V>) -> bool {
    let pending = vcpu.vmcs.read(vmcs::GUEST_PENDING_DEBUG_EXCEPTIONS);
    PendingDebugExceptions::from_bits_retain(pending).intersects(PendingDebugExceptions::RAISED)
        && ActivityState(vcpu.vmcs.read(vmcs::GUEST_ACTIVITY)) == ActivityState::ACTIVE
}

/// The window opened for which an NMI waited.
pub(super) fn nmi_in_window<V: Vmcs>(vcpu: &mut VmxVcpu<'_, V>) {
    set_nmi_window(vcpu, false);
    end_sti_blocking(&mut vcpu.vmcs);
    nmi(vcpu);
}

/// Ends blocking by STI behind an exit for an NMI window. Where STI blocks no NMIs the window opens in its shadow, which
/// would not end: nothing is executed before the window opens again (SDM, "NMI-Window Exiting": a processor *may* keep
/// it closed). Nor does the shadow survive an NMI that such a processor takes.
pub(super) fn end_sti_blocking(vmcs: &mut impl Vmcs) {
    let state = Interruptibility::from_bits_retain(vmcs.read(vmcs::GUEST_INTERRUPTIBILITY));
    vmcs.write(vmcs::GUEST_INTERRUPTIBILITY, (state & !Interruptibility::BLOCKING_BY_STI).bits());
}

/// Asks for, or no longer asks for, an exit when the guest can take an NMI.
pub(super) fn set_nmi_window<V: Vmcs>(vcpu: &mut VmxVcpu<'_, V>, wanted: bool) {
    switch::primary(&mut vcpu.vmcs, PrimaryControls::NMI_WINDOW_EXITING, wanted);
}

fn exception<V: Vmcs>(vcpu: &mut VmxVcpu<'_, V>, vector: Vector, error_code: Option<u32>) {
    // Real mode pushes no error codes, and VM entry refuses to (SDM, "Checks on VM-Entry Control Fields").
    let error_code = error_code.filter(|_| vcpu.cr0().contains(Cr0::PE));
    let word = Interruption::new(vector.0, InterruptionType::HARDWARE_EXCEPTION, error_code.is_some());
    if let Some(code) = error_code {
        vcpu.vmcs.write(vmcs::ENTRY_EXCEPTION_ERROR_CODE, code);
    }
    if is_fault(vector) {
        // The image of the flags that a fault leaves has RF set, so that a breakpoint on the instruction does
        // not strike again; an injection leaves the flags as they are.
        vcpu.set_rflags(vcpu.rflags() | Rflags::RF);
    }
    vcpu.vmcs.write(vmcs::ENTRY_INTERRUPTION_INFORMATION, word.0);
    vcpu.vmcs.write(vmcs::GUEST_ACTIVITY, ActivityState::ACTIVE.0);
}

/// Returns whether an exception comes before its instruction (SDM, "Exception Classifications"). The debug exceptions
/// that are injected are traps.
fn is_fault(vector: Vector) -> bool {
    !matches!(vector, Vector::DB | Vector::BP | Vector::OF | Vector::DF | Vector::MC)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vcpu::EventState;
    use crate::vcpu::Registers;
    use hw::sim::SimVmcs;

    fn vectoring(vector: Vector) -> Interruption {
        Interruption::new(vector.0, InterruptionType::HARDWARE_EXCEPTION, false)
    }

    const DOUBLE_FAULT: Event = Event::Exception { vector: Vector::DF, error_code: Some(0) };
    const PAGE_FAULT: Event = Event::PageFault { address: 0x1000, error_code: 2 };

    #[test]
    fn contributory_pairs_become_a_double_fault() {
        assert_eq!(combine(vectoring(Vector::GP), Event::GP0), Ok(DOUBLE_FAULT));
        assert_eq!(combine(vectoring(Vector::PF), Event::GP0), Ok(DOUBLE_FAULT));
        assert_eq!(combine(vectoring(Vector::PF), PAGE_FAULT), Ok(DOUBLE_FAULT));
    }

    #[test]
    fn benign_pairs_are_taken_one_after_the_other() {
        assert_eq!(combine(vectoring(Vector::UD), Event::GP0), Ok(Event::GP0));
        assert_eq!(combine(vectoring(Vector::GP), PAGE_FAULT), Ok(PAGE_FAULT));
        let interrupt = Interruption::new(0x20, InterruptionType::EXTERNAL, false);
        assert_eq!(combine(interrupt, Event::GP0), Ok(Event::GP0));
        assert_eq!(combine(Interruption(0), Event::GP0), Ok(Event::GP0));
    }

    #[test]
    fn a_fault_during_a_double_fault_shuts_down() {
        assert_eq!(combine(vectoring(Vector::DF), Event::GP0), Err(Shutdown));
    }

    /// The VMCS after `act` on a guest whose protected-mode processor has `vmcs`.
    fn after(mut vmcs: SimVmcs, act: impl FnOnce(&mut VmxVcpu<'_, SimVmcs>)) -> SimVmcs {
        let mut registers = Registers::default();
        vmcs.write(vmcs::GUEST_CR0, Cr0::PE.bits());
        let mut vcpu = VmxVcpu::new(vmcs, &mut registers, 0);
        act(&mut vcpu);
        vcpu.vmcs
    }

    fn entry(vmcs: &SimVmcs) -> Interruption {
        Interruption(vmcs.read(vmcs::ENTRY_INTERRUPTION_INFORMATION))
    }

    fn has_nmi_window(vmcs: &SimVmcs) -> bool {
        let controls = PrimaryControls::from_bits_retain(vmcs.read(vmcs::PRIMARY_CONTROLS));
        controls.contains(PrimaryControls::NMI_WINDOW_EXITING)
    }

    #[test]
    fn an_nmi_waits_while_anything_blocks_it() {
        let free = after(SimVmcs::default(), nmi);
        assert_eq!((entry(&free).0, has_nmi_window(&free)), (0x8000_0202, false));
        let blockings = [
            Interruptibility::BLOCKING_BY_NMI,
            Interruptibility::BLOCKING_BY_STI,
            Interruptibility::BLOCKING_BY_MOV_SS,
        ];
        for blocking in blockings {
            let mut blocked = SimVmcs::default();
            blocked.write(vmcs::GUEST_INTERRUPTIBILITY, blocking.bits());
            let blocked = after(blocked, nmi);
            assert_eq!((entry(&blocked).0, has_nmi_window(&blocked)), (0, true), "{blocking:?}");
        }
        let mut stepping = SimVmcs::default();
        stepping.write(vmcs::GUEST_PENDING_DEBUG_EXCEPTIONS, 1 << 14);
        let stepping = after(stepping, nmi);
        assert_eq!(
            (entry(&stepping).0, has_nmi_window(&stepping)),
            (0, true),
            "a debug exception is pending"
        );
        let mut busy = SimVmcs::default();
        busy.write(vmcs::ENTRY_INTERRUPTION_INFORMATION, 0x8000_0b0d);
        let busy = after(busy, nmi);
        assert_eq!((entry(&busy).0, has_nmi_window(&busy)), (0x8000_0b0d, true));
    }

    /// As on processors where STI blocks no NMIs: waiting for the end of its shadow would be waiting for ever.
    #[test]
    fn a_window_that_opens_in_the_shadow_of_sti_is_one() {
        let mut vmcs = SimVmcs::default();
        vmcs.write(vmcs::GUEST_INTERRUPTIBILITY, Interruptibility::BLOCKING_BY_STI.bits());
        let waiting = after(vmcs, nmi);
        assert!(has_nmi_window(&waiting));
        let taken = after(waiting, nmi_in_window);
        assert_eq!((entry(&taken).0, has_nmi_window(&taken)), (0x8000_0202, false));
        assert_eq!(taken.read(vmcs::GUEST_INTERRUPTIBILITY), 0);
    }

    #[test]
    fn what_an_exit_interrupted_is_delivered_again_whole() {
        let again = |vectoring: Interruption| {
            let mut vmcs = SimVmcs::default();
            vmcs.write(vmcs::IDT_VECTORING_INFORMATION, vectoring.0);
            vmcs.write(vmcs::IDT_VECTORING_ERROR_CODE, 0x18);
            vmcs.write(vmcs::EXIT_INSTRUCTION_LENGTH, 2);
            vmcs.write(vmcs::GUEST_INTERRUPTIBILITY, Interruptibility::BLOCKING_BY_NMI.bits());
            after(vmcs, |vcpu| {
                deliver_again(vcpu);
            })
        };
        let fault = again(Interruption::new(13, InterruptionType::HARDWARE_EXCEPTION, true));
        assert_eq!((entry(&fault).0, fault.read(vmcs::ENTRY_EXCEPTION_ERROR_CODE)), (0x8000_0b0d, 0x18));
        let int = again(Interruption::new(0x80, InterruptionType::SOFTWARE_INTERRUPT, false));
        assert_eq!((entry(&int).0, int.read(vmcs::ENTRY_INSTRUCTION_LENGTH)), (0x8000_0480, 2));
        let interrupt = again(Interruption::new(0x30, InterruptionType::EXTERNAL, false));
        assert_eq!(entry(&interrupt).0, 0x8000_0030);
        assert_eq!(interrupt.read(vmcs::GUEST_INTERRUPTIBILITY), Interruptibility::BLOCKING_BY_NMI.bits());
        let nmi = again(Interruption::new(2, InterruptionType::NMI, false));
        assert_eq!((entry(&nmi).0, nmi.read(vmcs::GUEST_INTERRUPTIBILITY)), (0x8000_0202, 0));
        assert!(!entry(&again(Interruption(0))).is_valid());
    }

    #[test]
    fn an_exception_wakes_and_has_no_error_code_in_real_mode() {
        let mut halted = SimVmcs::default();
        halted.write(vmcs::GUEST_ACTIVITY, ActivityState::HLT.0);
        let protected = after(halted, |vcpu| vcpu.inject(Event::GP0));
        assert_eq!((entry(&protected).0, protected.read(vmcs::GUEST_ACTIVITY)), (0x8000_0b0d, 0));
        let real = after(SimVmcs::default(), |vcpu| {
            vcpu.vmcs.write(vmcs::GUEST_CR0, 0);
            vcpu.inject(Event::GP0);
        });
        assert_eq!(entry(&real).0, 0x8000_030d);
    }

    #[test]
    fn a_fault_sets_the_resume_flag_and_a_trap_does_not() {
        let flags = |vector| {
            let event = Event::Exception { vector, error_code: None };
            let vmcs = after(SimVmcs::default(), |vcpu| vcpu.inject(event));
            vmcs.read(vmcs::GUEST_RFLAGS)
        };
        assert_eq!((flags(Vector::UD), flags(Vector::DB), flags(Vector::DF)), (Rflags::RF.bits(), 0, 0));
    }
}
