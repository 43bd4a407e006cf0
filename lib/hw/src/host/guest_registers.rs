//! Registers that hold the guest's values while the hypervisor runs. Here the guest has none of them: they read as zero,
//! and what is done to them is recorded.

use super::{Act, did};
use x86::vmx::instruction_error::VmFail;

/// Loads CR2.
pub fn set_cr2(address: u64) {
    did(Act::SetCr2(address));
}

/// CR2 and DR0 to DR6 as INIT leaves them.
pub fn reset_cr2_and_debug_registers() {
    did(Act::ResetDebugRegisters);
}

/// DR0 to DR3.
#[must_use]
pub const fn breakpoint_addresses() -> [u64; 4] {
    [0; 4]
}

/// Sets `bits` of DR6.
pub fn set_dr6_bits(bits: u64) {
    did(Act::SetDr6(bits));
}

/// PKRU.
#[must_use]
pub const fn pkru() -> u32 {
    0
}

/// IA32_PKRS.
#[must_use]
pub const fn pkrs() -> u32 {
    0
}

/// Requires a branch target: the processor has no such enforcement.
pub const fn expect_branch_target(_is_user: bool) {}

/// Drops this processor's translations of the guest's linear addresses, global ones included.
///
/// # Errors
///
/// None.
pub fn invalidate_translations() -> Result<(), VmFail> {
    did(Act::InvalidateLinear(1, 1, 0));
    Ok(())
}
