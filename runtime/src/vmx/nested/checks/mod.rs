//! The checks of a VM entry, split as the manual splits them (SDM, "Checks on VMX Controls and Host-State
//! Area"; "Checking and Loading Guest State").
//!
//! Each takes VMCS12 as `&impl hw::Vmcs` and says which rule it found broken.

mod controls;
mod guest_state;
mod host_state;

use x86::vmx::instruction_error::InstructionError;

/// A check that failed before the entry: VMfailValid, and L1 goes on behind its instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// [`InstructionError::ENTRY_CONTROLS`] or [`InstructionError::ENTRY_HOST_STATE`].
    pub(super) error: InstructionError,
    /// The rule, for the log and for tests.
    pub(super) rule: &'static str,
}

/// A VM entry that failed: a VM exit to L1 with bit 31 of the exit reason set and its host state loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EntryFailure {
    /// Exit reason 33.
    GuestState {
        /// Exit qualification: 0, 2 for PDPTEs, 3 for the injection of an NMI, 4 for the VMCS link pointer.
        qualification: u64,
        /// The rule, for the log and for tests.
        rule: &'static str,
    },
    /// Exit reason 34.
    MsrLoading {
        /// Exit qualification: number of the entry that failed, the first being 1.
        entry: u32,
    },
}
