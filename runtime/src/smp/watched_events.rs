//! What a hypapp has exit on one CPU, beside what the core itself needs to.

use bitflags::bitflags;
use core::sync::atomic::{AtomicU8, Ordering};

bitflags! {
    /// What a hypapp can ask to be told of.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct WatchedEvents: u8 {
        /// An external interrupt is pending.
        const EXTERNAL_INTERRUPT = 1 << 0;
        /// The guest can take an interrupt.
        const INTERRUPT_WINDOW = 1 << 1;
    }
}

/// Those of one CPU; used by that CPU alone.
#[derive(Debug)]
pub(crate) struct Watched(AtomicU8);

impl Watched {
    /// Nothing is watched.
    pub(crate) const fn new() -> Self {
        Self(AtomicU8::new(0))
    }

    /// Returns what is watched.
    #[inline]
    pub(crate) fn events(&self) -> WatchedEvents {
        WatchedEvents::from_bits_retain(self.0.load(Ordering::Relaxed))
    }

    /// Watches `events`, or no longer does.
    pub(crate) fn set(&self, events: WatchedEvents, wanted: bool) {
        let mut all = self.events();
        all.set(events, wanted);
        self.0.store(all.bits(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_event_is_watched_by_itself() {
        let watched = Watched::new();
        assert_eq!(watched.events(), WatchedEvents::empty());
        for event in WatchedEvents::all().iter() {
            watched.set(event, true);
            assert_eq!(watched.events(), event);
            watched.set(WatchedEvents::all(), true);
            watched.set(event, false);
            assert_eq!(watched.events(), WatchedEvents::all() - event);
            watched.set(WatchedEvents::all(), false);
        }
    }
}
