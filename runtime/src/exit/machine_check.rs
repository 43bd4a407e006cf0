//! Machine checks that strike while the hypervisor runs (SDM, "Machine-Check Architecture").
//!
//! The banks are the guest's: it reads and clears them. The hypervisor only has to survive until the guest is told.

use super::{Action, ResetCause};
use crate::vcpu::Vcpu;
use hw::Msrs;
use x86::cr::Cr4;
use x86::event::{Event, Vector};
use x86::msr::Msr;

const IA32_MCG_STATUS: Msr = Msr(0x17a);
/// The interrupted program can be gone on with.
const RESTART_IP_VALID: u64 = x86::msr::MCG_STATUS_RIPV;

/// Whether the hypervisor can go on where it was struck; what happened is then the guest's to know.
pub fn can_go_on(msrs: &impl Msrs) -> bool {
    msrs.read(IA32_MCG_STATUS).is_ok_and(|status| status & RESTART_IP_VALID != 0)
}

/// Gives the guest the machine check: a processor without CR4.MCE shuts down.
pub fn give<V: Vcpu + ?Sized>(vcpu: &V) -> Action {
    if vcpu.cr4().contains(Cr4::MCE) {
        Action::Inject(Event::Exception { vector: Vector::MC, error_code: None })
    } else {
        Action::Reset(ResetCause::TripleFault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vcpu::fake::FakeVcpu;
    use hw::sim::SimMsrs;

    #[test]
    fn the_hypervisor_goes_on_only_where_the_processor_can() {
        let status = |value| can_go_on(&SimMsrs::new([(IA32_MCG_STATUS, value)]));
        assert!(status(5) && status(1) && !status(4) && !status(6));
        assert!(!can_go_on(&SimMsrs::new([])), "there is no such register");
    }

    #[test]
    fn the_guest_takes_it_where_it_asked_and_shuts_down_else() {
        let mut vcpu = FakeVcpu::long_mode();
        vcpu.cr4 |= Cr4::MCE;
        assert_eq!(give(&vcpu), Action::Inject(Event::Exception { vector: Vector::MC, error_code: None }));
        vcpu.cr4 -= Cr4::MCE;
        assert_eq!(give(&vcpu), Action::Reset(ResetCause::TripleFault));
    }
}
