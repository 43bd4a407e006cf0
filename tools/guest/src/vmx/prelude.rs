//! What nearly every guest wants that is a hypervisor of its own.

pub use super::{ExitReason, Guest, enter_operation, leave_operation, vmcs};
pub use crate::{check, check_eq, guest};
