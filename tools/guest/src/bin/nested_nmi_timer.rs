//! NMI/INIT/SIPI: a VMX-preemption timer that is over exits before an NMI that waits, which then is the hypervisor's.
#![no_std]
#![no_main]

use guest::cpu::wait;
use guest::vmx::nmi::{self, arrived, blocked, finish, send};
use guest::vmx::prelude::*;
use x86::vmx::controls::PinBasedControls;

guest!(main);

fn main() {
    nmi::initialise();
    enter_operation();
    for experiment in [of_hypervisor, virtual_nmis, of_guest] {
        blocked(experiment);
        finish();
    }
    leave_operation();
}

fn of_hypervisor() {
    timer_first(PinBasedControls::NMI_EXITING);
}

fn virtual_nmis() {
    timer_first(PinBasedControls::NMI_EXITING | PinBasedControls::VIRTUAL_NMIS);
}

fn of_guest() {
    timer_first(PinBasedControls::empty());
}

fn timer_first(controls: PinBasedControls) {
    let mut guest = nmi::guest(controls | PinBasedControls::PREEMPTION_TIMER, nothing);
    guest.write(vmcs::PREEMPTION_TIMER, 0);
    send();
    check_eq!(arrived(), (0, 0), "{controls:?}: an NMI while blocked");
    check_eq!(guest.run(), ExitReason::PREEMPTION_TIMER, "{controls:?}: the first exit");
    check_eq!(guest.read(vmcs::GUEST_RIP), nothing as *const () as u64, "{controls:?}: its place");
    wait(50_000);
    check_eq!(arrived(), (1, 0), "{controls:?}: the NMI after the exit");
    // With time left the NMI would have been first.
    guest.write(vmcs::PREEMPTION_TIMER, u32::MAX);
    check_eq!(guest.run(), ExitReason::VMCALL, "{controls:?}: end");
    check_eq!(arrived(), (1, 0), "{controls:?}: NMIs in the end");
}

extern "C" fn nothing() {}
