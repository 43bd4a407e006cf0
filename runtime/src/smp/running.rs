//! Whether guest code runs on a CPU, as the others see it who wait for it.
//!
//! A CPU is awaited by a rendezvous and by a shootdown while this says that guest code may run there. It says no only
//! from the moment that nothing but a start-up IPI can lead to guest code, and yes again before anything else is done at
//! the exit. Whoever changed something meanwhile did not wait for this CPU, which therefore drops its translations and
//! looks around before it enters: [`Running::resume`] returns whether it has to.

use core::sync::atomic::{AtomicBool, Ordering};

/// Of one CPU; written by that CPU alone.
#[derive(Debug)]
pub(crate) struct Running(AtomicBool);

impl Running {
    /// No guest code runs.
    pub(crate) const fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    /// Guest code runs, or may at any moment.
    pub(crate) fn is_running(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    /// No guest code runs from here on until [`Self::resume`].
    pub(crate) fn pause(&self) {
        self.0.store(false, Ordering::SeqCst);
    }

    /// Guest code may run from here on. Returns whether it could not before: translations may be stale then.
    #[inline]
    #[must_use]
    pub(crate) fn resume(&self) -> bool {
        let was_paused = !self.0.load(Ordering::Relaxed);
        if was_paused {
            self.0.store(true, Ordering::SeqCst);
        }
        was_paused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_that_was_not_awaited_is_told_once_to_catch_up() {
        let running = Running::new();
        assert!(!running.is_running());
        assert!(running.resume() && running.is_running());
        assert!(!running.resume() && running.is_running());
        running.pause();
        assert!(!running.is_running() && running.resume());
    }
}
