//! What counts and records ([`crate::vmx::observers`]) is one for L1 and L2: a change of guests takes it over.

use crate::vmx::observers::{Observers, Values};
use hw::Vmcs;

/// What the two VMCSs of a CPU have, so that only what differs is written.
#[derive(Debug, Default)]
pub(super) struct PerformanceCounters {
    l1: Values,
    /// `None` where something may have changed it.
    l2: Option<Values>,
}

impl PerformanceCounters {
    /// L2 starts with what L1 has. What the entry loads is written afterwards.
    #[inline]
    pub(super) fn enter(&mut self, observers: &Observers, vmcs02: &mut impl Vmcs, l1: Values) {
        self.l1 = l1;
        observers.set_values(vmcs02, l1, self.l2.take());
    }

    /// Returns what L2 has at its exit, with which [`Self::give_to_l1`] has L1 go on.
    #[inline]
    pub(super) fn leave(&mut self, observers: &Observers, vmcs02: &impl Vmcs) -> Values {
        let values = observers.values(vmcs02);
        self.l2 = Some(values);
        values
    }

    /// L1 goes on with what L2 had. What the exit loads is written afterwards.
    #[inline]
    pub(super) fn give_to_l1(&self, observers: &Observers, vmcs01: &mut impl Vmcs, values: Values) {
        observers.set_values(vmcs01, values, Some(self.l1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vmx::observers::fixture::{COUNTERS, RECORDS, processor};
    use hw::sim::SimVmcs;
    use x86::vmx::vmcs;

    /// The values that VMCS02 has in L2 and VMCS01 behind its exit, and the writes to both, where L1 has `l1` and L2
    /// changes it to `l2`.
    fn round(
        counters: &mut PerformanceCounters,
        vmcses: &mut [SimVmcs; 2],
        l1: Values,
        l2: Values,
    ) -> (Values, Values) {
        let observers = processor();
        let [vmcs01, vmcs02] = vmcses;
        vmcs01.set_value(COUNTERS, l1[0]);
        vmcs01.set_value(RECORDS, l1[1]);
        let values = observers.values(vmcs01);
        counters.enter(&observers, vmcs02, values);
        let seen = observers.values(vmcs02);
        vmcs02.set_value(COUNTERS, l2[0]);
        vmcs02.set_value(RECORDS, l2[1]);
        let left = counters.leave(&observers, vmcs02);
        counters.give_to_l1(&observers, vmcs01, left);
        (seen, observers.values(vmcs01))
    }

    #[test]
    fn counting_goes_on_from_l1_to_l2_and_back() {
        let (mut counters, mut vmcses) =
            (PerformanceCounters::default(), [SimVmcs::default(), SimVmcs::default()]);
        for (l1, l2) in [([1, 2], [1, 2]), ([0, 2], [3, 2]), ([3, 0], [0, 0]), ([5, 6], [7, 8])] {
            assert_eq!(round(&mut counters, &mut vmcses, l1, l2), (l1, l2));
        }
    }

    #[test]
    fn what_stays_is_not_written_again() {
        let (mut counters, mut vmcses) =
            (PerformanceCounters::default(), [SimVmcs::default(), SimVmcs::default()]);
        for _ in 0..3 {
            round(&mut counters, &mut vmcses, [7, 9], [7, 9]);
        }
        // Once each, when nobody knew what VMCS02 had.
        assert_eq!((vmcses[0].writes().len(), vmcses[1].writes().len()), (0, 2));
    }

    #[test]
    fn an_entry_behind_one_that_failed_trusts_nothing() {
        let (mut counters, mut vmcses) =
            (PerformanceCounters::default(), [SimVmcs::default(), SimVmcs::default()]);
        round(&mut counters, &mut vmcses, [7, 9], [7, 9]);
        let observers = processor();
        counters.enter(&observers, &mut vmcses[1], [7, 9]);
        // The entry loads another value, and fails.
        vmcses[1].write(vmcs::GUEST_PERF_GLOBAL_CTRL, 1);
        assert_eq!(round(&mut counters, &mut vmcses, [7, 9], [7, 9]).0, [7, 9]);
    }
}
