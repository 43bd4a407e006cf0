//! VM entries of L1: their checks ([`checks`]), the VMCS under which L2 runs ([`vmcs02`]), and the way into L2.

pub(super) mod checks;
#[cfg(target_os = "none")]
pub(super) mod enter;
#[cfg_attr(not(any(test, target_os = "none")), expect(dead_code, reason = "asked on the machine"))]
pub(super) mod refusal;
pub(super) mod vmcs02;
