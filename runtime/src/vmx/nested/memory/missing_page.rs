//! What an access in L2's stead lacked, and whether L1 is to be asked for it.

use super::ept02::access::Access;
use x86::event::Event;

/// What an access in L2's stead lacked, of what L1 can give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MissingPage {
    /// L1's tables do not allow the access.
    SecondLevel(Access),
    /// L2's page tables, which L1 may keep for it, do not allow the access.
    Fault(Event),
}

/// The missing page that was noted last, and whether L1 is to be asked.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Note {
    missing: Option<MissingPage>,
    is_asked: bool,
    may_ask: bool,
}

impl Note {
    /// Returns the note of an event of a hypapp's; L2 can try again behind one that `may_ask`, and L1 is asked before.
    pub(crate) const fn of_event(may_ask: bool) -> Self {
        Self { missing: None, is_asked: false, may_ask }
    }

    /// Forgets what was noted of this event.
    pub(crate) const fn clear(&mut self) {
        *self = Self::of_event(self.may_ask);
    }

    /// Notes what an access lacked.
    pub(crate) const fn set(&mut self, missing: MissingPage) {
        *self = Self { missing: Some(missing), ..Self::of_event(self.may_ask) };
    }

    /// Asks L1 behind this event; returns false where that is nothing of L1's, or L2 cannot try again.
    pub(crate) const fn ask(&mut self) -> bool {
        self.is_asked = self.may_ask && self.missing.is_some();
        self.is_asked
    }

    /// The event is over: what L1 is to be asked for.
    pub(crate) fn finish(&mut self) -> Option<MissingPage> {
        let note = core::mem::take(self);
        note.missing.filter(|_| note.is_asked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAULT: MissingPage = MissingPage::Fault(Event::UD);

    #[test]
    fn l1_is_asked_for_the_last_lack_where_the_hypapp_wants_it() {
        let mut note = Note::of_event(true);
        assert!(!note.ask());
        note.set(MissingPage::Fault(Event::GP0));
        note.set(FAULT);
        assert!(note.ask());
        assert_eq!(note.finish(), Some(FAULT));
        assert_eq!(note.finish(), None);
        let mut unasked = Note::of_event(true);
        unasked.set(FAULT);
        assert_eq!(unasked.finish(), None);
    }

    #[test]
    fn another_access_forgets_what_the_one_before_lacked() {
        let mut note = Note::of_event(true);
        note.set(FAULT);
        assert!(note.ask());
        note.clear();
        assert!(!note.ask());
        note.set(FAULT);
        assert_eq!(note.finish(), None);
    }

    #[test]
    fn an_event_behind_which_l2_does_not_try_again_asks_nobody() {
        let mut note = Note::of_event(false);
        note.set(FAULT);
        assert!(!note.ask());
        note.clear();
        note.set(FAULT);
        assert!(!note.ask());
        assert_eq!(note.finish(), None);
    }
}
