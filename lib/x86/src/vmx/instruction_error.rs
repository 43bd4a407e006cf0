//! VM-instruction errors (SDM, "VM Instruction Error Numbers").

/// The VM-instruction error field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InstructionError(pub u32);

/// How a VMX instruction failed (SDM, "Conventions").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VmFail {
    /// VMfailInvalid: there is no current VMCS.
    Invalid,
    /// VMfailValid: the number is in the current VMCS's VM-instruction error field.
    Valid,
}
