//! What VMX offers to L1 (SDM, appendix "VMX Capability Reporting Facility").

use x86::vmx::capability::{Allowed, EptVpidCapability};

/// The VMX of L1's processor: the values of its capability MSRs, in the TRUE versions where there are two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Capability {
    /// IA32_VMX_BASIC.
    pub(super) basic: u64,
    /// IA32_VMX_MISC.
    pub(super) misc: u64,
    /// Pin-based controls.
    pub(super) pin_based: Allowed,
    /// Primary processor-based controls.
    pub(super) primary: Allowed,
    /// Secondary processor-based controls.
    pub(super) secondary: Allowed,
    /// VM-exit controls.
    pub(super) exit: Allowed,
    /// VM-entry controls.
    pub(super) entry: Allowed,
    /// IA32_VMX_EPT_VPID_CAP.
    pub(super) ept_vpid: EptVpidCapability,
    /// CR0 bits that must be 1, and those that may be.
    pub(super) cr0_fixed: [u64; 2],
    /// CR4 bits that must be 1, and those that may be.
    pub(super) cr4_fixed: [u64; 2],
    /// Width of physical addresses in bits.
    pub(super) physical_address_bits: u8,
}
