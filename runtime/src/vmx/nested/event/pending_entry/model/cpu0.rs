//! CPU 0: a shootdown or a rendezvous, step by step as `smp` has them.

use super::{ModelState, Outcome};

/// What CPU 0 does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    None,
    /// Takes a page away, and has no CPU use a translation of it.
    Shootdown,
    /// Keeps other CPUs from guest code for a while.
    Rendezvous,
}

/// Steps after which what CPU 0 relies on holds.
const IS_DONE: u8 = 4;
const IS_OVER: u8 = 5;

impl ModelState {
    pub(super) fn step_cpu0(&mut self, purpose: Purpose) -> bool {
        let may = match purpose {
            Purpose::None => false,
            Purpose::Shootdown => self.step_shootdown(),
            Purpose::Rendezvous => self.step_rendezvous(),
        };
        if may {
            self.cpu0 += 1;
        }
        may
    }

    fn step_shootdown(&mut self) -> bool {
        match self.cpu0 {
            0 => self.is_stale = true,
            1 if self.running => self.flush = true,
            // It will drop them when it runs again.
            1 => self.cpu0 = 2,
            2 => self.wake(),
            3 => return !self.flush || !self.running,
            _ => return false,
        }
        true
    }

    fn step_rendezvous(&mut self) -> bool {
        match self.cpu0 {
            0 => self.is_stopped = true,
            1 if self.running => self.is_awaited = true,
            1 => self.cpu0 = 2,
            2 => self.call(),
            3 if !self.running => self.is_awaited = false,
            3 => return !self.is_awaited,
            4 => self.is_stopped = false,
            _ => return false,
        }
        true
    }

    fn wake(&mut self) {
        if self.running {
            self.call();
        } else {
            self.attention = true;
        }
    }

    fn call(&mut self) {
        self.attention = true;
        self.nmi_pin |= !self.nmi_in_flight;
        self.nmi_in_flight = true;
    }

    /// What CPU 0 relies on.
    pub(super) fn check_cpu0(&self, purpose: Purpose) -> Outcome<()> {
        match purpose {
            Purpose::Shootdown if self.cpu0 >= IS_DONE && self.is_stale && self.runs_guest() => {
                Err("guest code runs with a stale translation")
            }
            Purpose::Rendezvous if self.cpu0 == IS_DONE && self.runs_guest() => {
                Err("guest code runs during a rendezvous")
            }
            _ => {
                assert!(self.cpu0 <= IS_OVER);
                Ok(())
            }
        }
    }
}
