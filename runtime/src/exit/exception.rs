//! Exceptions that were intercepted, and instructions that the guest's processor does not have.

use super::Action;
use x86::event::Event;

/// Gives an exception to the guest as if it had not been intercepted.
///
/// No hypapp event exists for it; a page fault carries its address, because an exit leaves CR2 alone.
#[must_use]
pub const fn reflect(event: Event) -> Action {
    Action::Inject(event)
}

/// Gives the guest #UD for an instruction that its processor does not have, at any privilege level: it is undefined
/// before privilege is looked at.
#[must_use]
pub const fn undefined_instruction() -> Action {
    Action::Inject(Event::UD)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_fault_keeps_address_and_error_code() {
        let event = Event::PageFault { address: 0x1234, error_code: 6 };
        assert_eq!(reflect(event), Action::Inject(event));
    }

    #[test]
    fn instructions_that_are_not_there_are_undefined() {
        assert_eq!(undefined_instruction(), Action::Inject(Event::UD));
    }
}
