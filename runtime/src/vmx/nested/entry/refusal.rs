//! An entry that the processor refuses where L2 has run since L1's VMLAUNCH or VMRESUME. L1 makes no entry then, whose
//! failure it could be told of, and its registers are L2's.
//!
//! Of all that a processor checks, the virtual task priority alone is memory, which L2 and other processors write. No bare
//! processor looks at it again before L1's next entry.

use super::checks::reads_virtual_tpr;
use crate::vmx::nested::exit::reflect::ExitFacts;
use crate::vmx::nested::vmcs12::{Dirty, Vmcs12};
use hw::Vmcs;
use x86::vmx::exit_reason::ExitReason;
use x86::vmx::instruction_error::InstructionError;
use x86::vmx::interruption::Interruption;
use x86::vmx::vmcs;

/// The exit of an L2 that no processor can run.
pub(crate) const SHUTDOWN: ExitFacts = ExitFacts::new(ExitReason::TRIPLE_FAULT, 0);

/// What becomes of L2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It is entered again.
    Again,
    /// It leaves for L1.
    Leaves(ExitFacts),
}

impl Refusal {
    /// Returns what becomes of the L2 of `vmcs02`, which the processor refuses with VM-instruction error `error`.
    ///
    /// A virtual task priority below its threshold is the exit that L1 asked for by the threshold. Where an event is to be
    /// delivered first, the threshold waits until L1's next entry.
    pub(crate) fn of(vmcs02: &mut impl Vmcs, vmcs12: &mut Vmcs12, error: u32) -> Self {
        let is_priority = InstructionError(error) == InstructionError::ENTRY_CONTROLS
            && reads_virtual_tpr(vmcs12)
            && vmcs02.read(vmcs::TPR_THRESHOLD) != 0;
        if !is_priority {
            return Self::Leaves(SHUTDOWN);
        }
        if Interruption(vmcs02.read(vmcs::ENTRY_INTERRUPTION_INFORMATION)).is_valid() {
            vmcs02.write(vmcs::TPR_THRESHOLD, 0);
            vmcs12.dirty |= Dirty::CONTROLS;
            return Self::Again;
        }
        Self::Leaves(ExitFacts::new(ExitReason::TPR_BELOW_THRESHOLD, 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hw::sim::SimVmcs;
    use x86::vmx::controls::{PrimaryControls, SecondaryControls};

    const CONTROLS: u32 = InstructionError::ENTRY_CONTROLS.0;

    fn l2(threshold: u32, event: u32) -> (SimVmcs, Vmcs12) {
        let (mut vmcs02, mut vmcs12) = (SimVmcs::default(), Vmcs12::new());
        vmcs02.write(vmcs::TPR_THRESHOLD, threshold);
        vmcs02.write(vmcs::ENTRY_INTERRUPTION_INFORMATION, event);
        vmcs12.write(vmcs::TPR_THRESHOLD, threshold);
        vmcs12.write(vmcs::PRIMARY_CONTROLS, PrimaryControls::USE_TPR_SHADOW.bits());
        vmcs12.dirty = Dirty::empty();
        (vmcs02, vmcs12)
    }

    #[test]
    fn a_priority_below_its_threshold_is_an_exit() {
        let (mut vmcs02, mut vmcs12) = l2(3, 0);
        let expected = Refusal::Leaves(ExitFacts::new(ExitReason::TPR_BELOW_THRESHOLD, 0));
        assert_eq!(Refusal::of(&mut vmcs02, &mut vmcs12, CONTROLS), expected);
        assert_eq!((vmcs02.read(vmcs::TPR_THRESHOLD), vmcs12.dirty), (3, Dirty::empty()));
    }

    #[test]
    fn an_event_comes_first_and_the_threshold_waits_for_l1() {
        let (mut vmcs02, mut vmcs12) = l2(3, 0x8000_0b0e);
        assert_eq!(Refusal::of(&mut vmcs02, &mut vmcs12, CONTROLS), Refusal::Again);
        assert_eq!(vmcs02.read(vmcs::TPR_THRESHOLD), 0);
        assert!(vmcs12.dirty.contains(Dirty::CONTROLS));
        // It was not that: once is enough.
        assert_eq!(Refusal::of(&mut vmcs02, &mut vmcs12, CONTROLS), Refusal::Leaves(SHUTDOWN));
    }

    #[test]
    fn whatever_else_is_refused_shuts_l2_down() {
        let (mut vmcs02, mut vmcs12) = l2(3, 0);
        let host_state = InstructionError::ENTRY_HOST_STATE.0;
        assert_eq!(Refusal::of(&mut vmcs02, &mut vmcs12, host_state), Refusal::Leaves(SHUTDOWN));
        let by_processor = SecondaryControls::VIRTUALIZE_APIC_ACCESSES;
        let primary = PrimaryControls::USE_TPR_SHADOW | PrimaryControls::ACTIVATE_SECONDARY_CONTROLS;
        vmcs12.write(vmcs::PRIMARY_CONTROLS, primary.bits());
        vmcs12.write(vmcs::SECONDARY_CONTROLS, by_processor.bits());
        assert_eq!(Refusal::of(&mut vmcs02, &mut vmcs12, CONTROLS), Refusal::Leaves(SHUTDOWN));
    }
}
