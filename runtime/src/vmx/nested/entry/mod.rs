//! VM entries of L1: their checks ([`checks`]), the VMCS under which L2 runs ([`vmcs02`]), and the way into L2.

pub(super) mod checks;
pub(super) mod enter;
pub(super) mod refusal;
pub(super) mod vmcs02;
