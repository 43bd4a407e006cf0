//! VM-instruction errors (SDM, "VM Instruction Error Numbers").

/// The VM-instruction error field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InstructionError(pub u32);

macro_rules! errors {
    ($($number:literal $name:ident $text:literal;)*) => {
        impl InstructionError {
            $(#[doc = concat!($text, ".")] pub const $name: Self = Self($number);)*
        }
    };
}

errors! {
    1 VMCALL_IN_ROOT "VMCALL executed in VMX root operation";
    2 VMCLEAR_ADDRESS "VMCLEAR with invalid physical address";
    3 VMCLEAR_VMXON_POINTER "VMCLEAR with VMXON pointer";
    4 VMLAUNCH_NOT_CLEAR "VMLAUNCH with non-clear VMCS";
    5 VMRESUME_NOT_LAUNCHED "VMRESUME with non-launched VMCS";
    6 VMRESUME_AFTER_VMXOFF "VMRESUME after VMXOFF";
    7 ENTRY_CONTROLS "VM entry with invalid control fields";
    8 ENTRY_HOST_STATE "VM entry with invalid host-state fields";
    9 VMPTRLD_ADDRESS "VMPTRLD with invalid physical address";
    10 VMPTRLD_VMXON_POINTER "VMPTRLD with VMXON pointer";
    11 VMPTRLD_REVISION "VMPTRLD with incorrect VMCS revision identifier";
    12 UNSUPPORTED_FIELD "VMREAD or VMWRITE from or to unsupported VMCS component";
    13 READ_ONLY_FIELD "VMWRITE to read-only VMCS component";
    15 VMXON_IN_ROOT "VMXON executed in VMX root operation";
    16 ENTRY_EXECUTIVE_POINTER "VM entry with invalid executive-VMCS pointer";
    17 ENTRY_EXECUTIVE_NOT_LAUNCHED "VM entry with non-launched executive VMCS";
    18 ENTRY_EXECUTIVE_NOT_VMXON "VM entry with executive-VMCS pointer not VMXON pointer";
    20 VMCALL_NOT_CLEAR "VMCALL with non-clear VMCS";
    22 VMCALL_EXIT_CONTROLS "VMCALL with invalid VM-exit control fields";
    26 ENTRY_MOV_SS "VM entry with events blocked by MOV SS";
    28 INVALID_INVALIDATION "Invalid operand to INVEPT or INVVPID";
}

/// How a VMX instruction failed (SDM, "Conventions").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VmFail {
    /// VMfailInvalid: there is no current VMCS.
    Invalid,
    /// VMfailValid: the number is in the current VMCS's VM-instruction error field.
    Valid,
}
