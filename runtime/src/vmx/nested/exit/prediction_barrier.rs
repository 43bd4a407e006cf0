//! What L2 taught the branch predictors is not L1's to meet.
//!
//! To the processor both are guests. L1 may rely on a predictor mode of its own, that of a hypervisor, which L2 cannot
//! train (SDM, "Indirect Branch Restricted Speculation (IBRS)"); so an exit that goes to L1 has a barrier where the
//! processor has one. The other way L1 has the same barrier to execute, and nothing else is kept from it.

use hw::{Cpuid, Msrs};
use x86::msr::GuestMsr;
use x86::speculation::SpeculationFeatures;

const BARRIER: u64 = 1;

/// The barrier between L2 and L1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PredictorBarrier {
    is_there: bool,
}

impl PredictorBarrier {
    /// That of the processor, where it has one.
    pub(crate) fn of(cpuid: &impl Cpuid) -> Self {
        Self { is_there: cpuid.cpuid(7, 0).edx & SpeculationFeatures::IBRS_AND_IBPB.bits() != 0 }
    }

    /// Keeps what was learnt before from all that follows.
    #[inline]
    pub(crate) fn raise(self, msrs: &impl Msrs) {
        if self.is_there && msrs.write(GuestMsr::IA32_PRED_CMD, BARRIER).is_err() {
            log::warn!("the processor refuses a barrier of indirect branch predictors");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::PredictorBarrier;
    use hw::Msrs;
    use hw::sim::{SimCpuid, SimMsrs};
    use x86::cpuid::CpuidResult;
    use x86::msr::Msr;

    #[test]
    fn speculation_policy_an_exit_to_l1_has_a_barrier() {
        for (edx, written) in [(0, 0), (1 << 26, 1)] {
            let cpuid = SimCpuid::default().with(7, 0, CpuidResult { edx, ..CpuidResult::default() });
            let msrs = SimMsrs::new([(Msr::IA32_PRED_CMD, 0)]);
            PredictorBarrier::of(&cpuid).raise(&msrs);
            assert_eq!(msrs.read(Msr::IA32_PRED_CMD), Ok(written));
        }
    }
}
