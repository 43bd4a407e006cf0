//! What a handler decided, carried out on the guest's processor before it goes on.

use super::inject::{self, Shutdown};
use super::nested;
use super::vcpu::VmxVcpu;
use crate::exit::{Action, ResetCause};
use crate::memory::guest_physical::GuestPhysical;
use crate::reset::end_guest::end_guest;
use crate::reset::shutdown_status;
use crate::smp::{cpus, percpu};
use crate::vcpu::EventState;
use hw::Vmcs;
use hw::bare::Processor;
use x86::event::Event;
use x86::vmx::exit_qualification::EptViolationQualification;
use x86::vmx::exit_reason::ExitReason;
use x86::vmx::interruption::Interruption;
use x86::vmx::vmcs;

#[inline(never)]
pub(super) fn apply<V: Vmcs>(vcpu: &mut VmxVcpu<'_, V>, reason: ExitReason, action: Action) {
    match action {
        Action::Advance => vcpu.advance(),
        Action::AdvanceBy(length) => vcpu.advance_by(length.into()),
        Action::Resume => resume(vcpu, reason),
        Action::Inject(event) => match combined(vcpu, reason, event) {
            Ok(event) => vcpu.inject(event),
            Err(Shutdown) => end(vcpu, ResetCause::TripleFault),
        },
        Action::Reset(cause) => end(vcpu, cause),
    }
}

/// Ends the guest, unless it only wanted back to real mode.
#[cold]
fn end<V: Vmcs>(vcpu: &mut VmxVcpu<'_, V>, cause: ResetCause) {
    let cpu = percpu::current();
    let is_alone = cpus::all()[1..].iter().all(|other| !other.is_running());
    let can_go_on = cpu.index == 0 && is_alone && !cpu.is_in_compartment() && !nested::is_in_operation(cpu);
    if !can_go_on || !shutdown_status::resume(vcpu, &GuestPhysical, &Processor, &Processor, cause) {
        end_guest(cause);
    }
    inject::set_nmi_window(vcpu, false);
}

/// `event` as the guest takes it, given what was being delivered when it exited.
pub(super) fn combined<V: Vmcs>(
    vcpu: &VmxVcpu<'_, V>,
    reason: ExitReason,
    event: Event,
) -> Result<Event, Shutdown> {
    let vectoring = if can_interrupt_delivery(reason) && !vcpu.is_delivery_finished {
        Interruption(vcpu.vmcs.read(vmcs::IDT_VECTORING_INFORMATION))
    } else {
        Interruption(0)
    };
    inject::combine(vectoring, event)
}

/// Goes on where the exit happened: what was being delivered is delivered again, and an IRET that faulted
/// has not yet ended the blocking of NMIs (SDM, "Information for VM Exits Due to Vectored Events").
fn resume<V: Vmcs>(vcpu: &mut VmxVcpu<'_, V>, reason: ExitReason) {
    if !can_interrupt_delivery(reason) || vcpu.is_delivery_finished || inject::deliver_again(vcpu) {
        return;
    }
    if reason == ExitReason::EPT_VIOLATION {
        let facts = EptViolationQualification(vcpu.vmcs.read(vmcs::EXIT_QUALIFICATION));
        if facts.is_nmi_unblocking() {
            vcpu.set_nmi_blocking(true);
        }
    }
}

/// Returns whether an exit can happen while an event is being delivered (SDM, "Information for VM Exits During
/// Event Delivery").
fn can_interrupt_delivery(reason: ExitReason) -> bool {
    matches!(
        reason,
        ExitReason::EPT_VIOLATION
            | ExitReason::TASK_SWITCH
            | ExitReason::EXCEPTION_OR_NMI
            | ExitReason::EPT_MISCONFIGURATION
            | ExitReason::PAGE_MODIFICATION_LOG_FULL
    )
}
