//! How a VM entry ended, as far as the checks before it are concerned.

use x86::vmx::exit_reason::ExitReason;
use x86::vmx::vmcs;

use super::{Failure, Guest};
use crate::check_eq;
use x86::vmx::vmcs::{Field, FieldValue};

/// How a VM entry ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// VMfail with this VM-instruction error.
    Refused(u32),
    /// The exit of a failed entry: basic exit reason and exit qualification.
    Failed(u16, u64),
    /// The guest ran, if only until its first exit.
    Entered,
}

/// Invalid control fields.
pub const CONTROLS: Entry = Entry::Refused(7);
/// Invalid host-state fields.
pub const HOST_STATE: Entry = Entry::Refused(8);
/// Invalid guest state.
pub const GUEST_STATE: Entry = Entry::Failed(33, 0);

impl Guest {
    /// Enters, and looks no further than whether that failed.
    pub fn try_entry(&mut self) -> Entry {
        match self.enter() {
            Err(Failure::Valid(error)) => Entry::Refused(error),
            Err(failure) => panic!("VM entry: {failure:?}"),
            Ok(reason) if reason.is_entry_failure() => {
                Entry::Failed(reason.basic(), self.read(vmcs::EXIT_QUALIFICATION))
            }
            Ok(ExitReason(_)) => Entry::Entered,
        }
    }
}

/// L2: nothing.
pub extern "C" fn end() {}

/// Enters with each value in `field`, which then has its old value again.
pub fn try_values<T: FieldValue + Copy, const IS_TRUSTED: bool>(
    nested: &mut Guest,
    what: &str,
    field: Field<T, IS_TRUSTED>,
    values: &[(T, Entry)],
) {
    let old = nested.read(field);
    for &(value, expected) in values {
        nested.call(end);
        nested.write(field, value);
        check_eq!(nested.try_entry(), expected, "{what} {:#x}", value.to_u64());
        nested.write(field, old);
        restore(nested);
    }
}

/// What exits save.
pub fn restore(nested: &mut Guest) {
    nested.write(vmcs::GUEST_INTERRUPTIBILITY, 0);
    nested.write(vmcs::GUEST_PENDING_DEBUG_EXCEPTIONS, 0);
    nested.write(vmcs::GUEST_RFLAGS, 2);
    nested.write(vmcs::GUEST_ACTIVITY, 0);
}
