//! Guest state that stays in the processor's own registers while the hypervisor runs.
//!
//! On a host, where the decisions around them are tested, there are no such registers.

#[cfg(target_os = "none")]
pub(super) use super::cet::{end_branch_target, load_at_entry};
#[cfg(target_os = "none")]
pub(super) use hw::bare::guest_registers::{
    breakpoint_addresses, expect_branch_target, invalidate_translations, pkrs, pkru,
    reset_cr2_and_debug_registers, set_cr2, set_dr6_bits,
};

#[cfg(not(target_os = "none"))]
mod host {
    use hw::Vmcs;
    use x86::vmx::instruction_error::VmFail;

    pub(in crate::vmx) fn breakpoint_addresses() -> [u64; 4] {
        [0; 4]
    }
    pub(in crate::vmx) fn end_branch_target() -> bool {
        false
    }
    pub(in crate::vmx) fn load_at_entry(_vmcs: &mut impl Vmcs, _ssp: u64) {}
    pub(in crate::vmx) fn expect_branch_target(_is_user: bool) {}
    pub(in crate::vmx) fn invalidate_translations() -> Result<(), VmFail> {
        Ok(())
    }
    pub(in crate::vmx) fn pkrs() -> u32 {
        0
    }
    pub(in crate::vmx) fn pkru() -> u32 {
        0
    }
    pub(in crate::vmx) fn reset_cr2_and_debug_registers() {}
    pub(in crate::vmx) fn set_cr2(_address: u64) {}
    pub(in crate::vmx) fn set_dr6_bits(_bits: u64) {}
}

#[cfg(not(target_os = "none"))]
pub(super) use host::{
    breakpoint_addresses, end_branch_target, expect_branch_target, invalidate_translations, load_at_entry,
    pkrs, pkru, reset_cr2_and_debug_registers, set_cr2, set_dr6_bits,
};
