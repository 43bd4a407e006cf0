//! VMX abort: a VM exit that cannot be completed (SDM, "VMX Aborts").

use crate::exit::{Action, triple_fault};
use crate::memory::guest::GuestMemory;
use x86::address::GuestPhysAddr;

/// Offset of the VMX-abort indicator in a VMCS region (SDM, "Format of the VMCS Region").
const INDICATOR: u64 = 4;

/// Why a VM exit could not be completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Abort {
    /// Guest MSRs could not be saved.
    GuestMsrs = 1,
    /// Host PDPTEs are not valid.
    HostPdptes = 2,
    /// Host MSRs could not be loaded.
    HostMsrs = 4,
}

/// Tells the abort in the VMCS of L1 at `region`, which outlives it, and shuts the processor down.
pub(super) fn end<M: GuestMemory + ?Sized>(
    region: Option<GuestPhysAddr>,
    memory: &M,
    cause: Abort,
) -> Action {
    if let Some(region) = region {
        let indicator = GuestPhysAddr::new(region.get() + INDICATOR);
        let _ = memory.write(indicator, &(cause as u32).to_le_bytes());
    }
    triple_fault::handle()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::ResetCause;
    use crate::memory::guest::fake::FakeMemory;

    #[test]
    fn an_abort_tells_its_number_in_the_vmcs_and_shuts_down() {
        let memory = FakeMemory::new(0x3000);
        for (cause, number) in [(Abort::GuestMsrs, 1u32), (Abort::HostPdptes, 2), (Abort::HostMsrs, 4)] {
            let action = end(Some(GuestPhysAddr::new(0x1000)), &memory, cause);
            assert_eq!(action, Action::Reset(ResetCause::TripleFault));
            let mut told = [0; 8];
            memory.read(GuestPhysAddr::new(0x1000), &mut told).unwrap();
            assert_eq!(told, ((u64::from(number)) << 32).to_le_bytes());
        }
        assert_eq!(end(None, &memory, Abort::HostMsrs), Action::Reset(ResetCause::TripleFault));
    }
}
