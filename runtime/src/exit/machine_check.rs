//! Machine checks that strike while the hypervisor runs (SDM, "Machine-Check Architecture").
//!
//! The banks are the guest's: it reads and clears them. The hypervisor only has to survive until the guest is told.

use super::{Action, triple_fault};
use hw::Msrs;
use x86::cr::Cr4;
use x86::event::{Event, Vector};
use x86::msr::{MC_STATUS_PCC, MC_STATUS_VAL, Msr};

/// The interrupted program can be gone on with.
const RESTART_IP_VALID: u64 = x86::msr::MCG_STATUS_RIPV;
/// The interrupted instruction has to do with it.
const ERROR_IP_VALID: u64 = x86::msr::MCG_STATUS_EIPV;
/// Status of bank 0; those of the next ones are four registers apart.
const IA32_MC0_STATUS: u32 = 0x401;
/// The register behind the status of so many banks is none of them.
const MOST_BANKS: u64 = 32;

/// Returns whether the hypervisor can go on where it was struck; what happened is then the guest's to know.
#[cold]
pub fn can_go_on(msrs: &impl Msrs) -> bool {
    let status = msrs.read(Msr::IA32_MCG_STATUS).unwrap_or(0);
    status & RESTART_IP_VALID != 0 && is_context_intact(msrs)
}

/// Returns whether the interrupted instruction met it, as a load of memory that is broken does: done again it meets it
/// again, and shuts the processor down, as the first one is not over.
#[cold]
pub fn is_of_instruction(msrs: &impl Msrs) -> bool {
    msrs.read(Msr::IA32_MCG_STATUS).unwrap_or(0) & ERROR_IP_VALID != 0
}

/// Returns whether no bank says that the processor's state is corrupt.
pub fn is_context_intact(msrs: &impl Msrs) -> bool {
    let banks = msrs.read(Msr::IA32_MCG_CAP).unwrap_or(0) & 0xff;
    let corrupt = MC_STATUS_VAL | MC_STATUS_PCC;
    (0..banks.min(MOST_BANKS))
        .zip((IA32_MC0_STATUS..).step_by(4))
        .all(|(_, status)| msrs.read(Msr(status)).is_ok_and(|value| value & corrupt != corrupt))
}

/// Gives the machine check to a guest whose processor has `cr4`: without CR4.MCE it shuts down.
pub fn give(cr4: Cr4) -> Action {
    if cr4.contains(Cr4::MCE) {
        Action::Inject(Event::Exception { vector: Vector::MC, error_code: None })
    } else {
        triple_fault::handle()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::ResetCause;
    use hw::sim::SimMsrs;

    /// A processor with two banks.
    fn processor(status: u64, banks: [u64; 2]) -> SimMsrs {
        SimMsrs::new([
            (Msr::IA32_MCG_CAP, 0x1c00_0002),
            (Msr::IA32_MCG_STATUS, status),
            (Msr(0x401), banks[0]),
            (Msr(0x405), banks[1]),
        ])
    }

    #[test]
    fn the_hypervisor_goes_on_only_where_the_processor_can() {
        let status = |value| can_go_on(&processor(value, [0; 2]));
        assert!(status(5) && status(1) && !status(4) && !status(6));
        assert!(!can_go_on(&SimMsrs::new([])), "there is no such register");
    }

    #[test]
    fn a_corrupt_state_is_nothing_to_go_on_with() {
        let uncorrected = 0xb200_0000_0000_0150;
        assert_ne!(uncorrected & MC_STATUS_PCC, 0);
        for (banks, expected) in [
            ([uncorrected, 0], false),
            ([0, uncorrected], false),
            ([0, uncorrected & !MC_STATUS_PCC], true),
            // Left from earlier.
            ([uncorrected & !MC_STATUS_VAL, 0], true),
        ] {
            assert_eq!(can_go_on(&processor(5, banks)), expected, "{banks:x?}");
            assert_eq!(is_context_intact(&processor(4, banks)), expected, "{banks:x?}");
        }
    }

    #[test]
    fn no_register_of_vmx_is_taken_for_a_bank() {
        let banks = (0..MOST_BANKS).zip((IA32_MC0_STATUS..).step_by(4)).map(|(_, status)| (Msr(status), 0));
        let msrs = SimMsrs::new(banks.chain([
            (Msr::IA32_MCG_CAP, 0xff),
            (Msr::IA32_MCG_STATUS, 1),
            (Msr::IA32_VMX_PINBASED_CTLS, !0),
        ]));
        assert!(can_go_on(&msrs));
    }

    #[test]
    fn the_guest_takes_it_where_it_asked_and_shuts_down_else() {
        assert_eq!(
            give(Cr4::MCE | Cr4::PAE),
            Action::Inject(Event::Exception { vector: Vector::MC, error_code: None })
        );
        assert_eq!(give(Cr4::PAE), Action::Reset(ResetCause::TripleFault));
    }
}
