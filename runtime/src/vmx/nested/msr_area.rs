//! MSR-load and MSR-store areas, carried out in software (SDM, "Loading MSRs"; "Saving MSRs").

use x86::msr::Msr;

/// The MSRs of a guest as a VM entry or VM exit loads and stores them: those that live in a VMCS, those of
/// the hardware, and the hypervisor's policy over both.
pub(super) trait AreaMsrs {
    /// The value to be stored; `None` where RDMSR would fault.
    fn read(&mut self, msr: Msr) -> Option<u64>;
    /// Loads a value; false where WRMSR would fault.
    fn write(&mut self, msr: Msr, value: u64) -> bool;
}
