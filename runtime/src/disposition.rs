//! What an exception or an NMI that strikes the hypervisor itself comes to.

use crate::exit::machine_check;
use core::ops::Range;
use hw::Msrs;

/// Vector of NMIs.
pub(crate) const NMI: u64 = 2;
/// Vector of page faults.
const PAGE_FAULT: u64 = 14;
/// Vector of machine checks.
pub(crate) const MACHINE_CHECK: u64 = 18;

/// What it comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Disposition {
    /// An NMI: a call of another CPU's, or the guest's.
    Nmi,
    /// A machine check that the guest is to be told of. The interrupted code goes on, elsewhere where it cannot go on
    /// there.
    MachineCheck(Option<u64>),
    /// An answer that the interrupted instruction expects: it goes on there.
    Resume(u64),
    /// A fault of ours or of the hardware's.
    Stop,
}

impl Disposition {
    /// Returns what `vector` comes to. Before a CPU's own data is in place it has nobody to tell: `has_cpu`. `resume`
    /// says where the interrupted instruction goes on, if it expects this vector.
    // Each access to an MSR that the processor lacks comes this way.
    #[inline]
    pub(crate) fn of(
        vector: u64,
        has_cpu: bool,
        resume: impl FnOnce(u64) -> Option<u64>,
        msrs: &impl Msrs,
    ) -> Self {
        match vector {
            NMI if has_cpu => Self::Nmi,
            MACHINE_CHECK if has_cpu && machine_check::can_go_on(msrs) => Self::machine_check(resume, msrs),
            _ => resume(vector).map_or(Self::Stop, Self::Resume),
        }
    }

    #[cold]
    fn machine_check(resume: impl FnOnce(u64) -> Option<u64>, msrs: &impl Msrs) -> Self {
        if !machine_check::is_of_instruction(msrs) {
            return Self::MachineCheck(None);
        }
        // The guest's memory is broken where it was to be accessed for it: as good as not there. Broken memory of ours
        // is nothing to go on with.
        resume(PAGE_FAULT).map_or(Self::Stop, |address| Self::MachineCheck(Some(address)))
    }
}

/// Returns whether the interrupted code was the NMI handler, on the stack `nmi_stack`, when the stack pointer was
/// `rsp`. NMIs stay blocked then, which IRET would end (SDM, "Handling Multiple NMIs"): another one would overwrite the
/// first one's frame.
pub(crate) fn interrupts_nmi(rsp: u64, nmi_stack: &Range<u64>) -> bool {
    nmi_stack.start < rsp && rsp <= nmi_stack.end
}

#[cfg(test)]
mod tests {
    use super::*;
    use hw::sim::SimMsrs;
    use x86::msr::Msr;

    fn of(vector: u64, has_cpu: bool, resume: Option<u64>, status: u64) -> Disposition {
        let msrs = SimMsrs::new([(Msr::IA32_MCG_STATUS, status), (Msr::IA32_MCG_CAP, 0)]);
        Disposition::of(vector, has_cpu, |_| resume, &msrs)
    }

    #[test]
    fn nothing_is_noted_for_a_cpu_whose_data_is_not_in_place() {
        for (vector, noted) in [(NMI, Disposition::Nmi), (MACHINE_CHECK, Disposition::MachineCheck(None))] {
            assert_eq!(of(vector, true, None, 5), noted);
            assert_eq!(of(vector, false, None, 5), Disposition::Stop);
        }
    }

    #[test]
    fn what_an_instruction_expects_is_its_answer_and_all_else_stops() {
        assert_eq!(of(13, false, Some(0x1000), 0), Disposition::Resume(0x1000));
        assert_eq!(of(13, true, None, 0), Disposition::Stop);
        assert_eq!(of(MACHINE_CHECK, true, None, 4), Disposition::Stop, "it cannot be gone on with");
    }

    #[test]
    fn broken_memory_of_the_guest_is_as_good_as_none_and_ours_stops() {
        let at = |vector| (vector == PAGE_FAULT).then_some(0x1000);
        let msrs = SimMsrs::new([(Msr::IA32_MCG_STATUS, 7), (Msr::IA32_MCG_CAP, 0)]);
        let found = Disposition::of(MACHINE_CHECK, true, at, &msrs);
        assert_eq!(found, Disposition::MachineCheck(Some(0x1000)));
        assert_eq!(of(MACHINE_CHECK, true, None, 7), Disposition::Stop);
        assert_eq!(
            of(MACHINE_CHECK, true, Some(0x1000), 5),
            Disposition::MachineCheck(None),
            "it only struck there"
        );
    }

    #[test]
    fn only_the_nmi_handlers_stack_keeps_nmis_blocked() {
        let stack = 0x1000..0x3000;
        // At its first instruction the handler has pushed a frame already.
        for (rsp, is_inside) in
            [(0x2fd8, true), (0x3000, true), (0x1008, true), (0x1000, false), (0x3008, false)]
        {
            assert_eq!(interrupts_nmi(rsp, &stack), is_inside, "{rsp:#x}");
        }
    }
}
