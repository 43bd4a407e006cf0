//! Triple fault: the guest's processor shut down, which a PC answers with a reset (SDM, "Interrupt 8-Double Fault
//! Exception (#DF)").
//!
//! Other ways lead to a shutdown too: a fault while a double fault is delivered, and a machine check without CR4.MCE. What
//! the reset comes to is [`crate::reset`]'s: back to real mode at the word of the CMOS memory, or the guest's end.

use super::{Action, ResetCause};

/// Resets a guest whose processor shut down.
#[must_use]
pub const fn handle() -> Action {
    Action::Reset(ResetCause::TripleFault)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_that_shuts_down_is_reset() {
        assert_eq!(handle(), Action::Reset(ResetCause::TripleFault));
    }
}
