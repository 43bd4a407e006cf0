//! Bytes to a serial port that may be dead: each gets its chance, and none holds up the boot.

/// Polls of a full transmitter before a byte is dropped; far more than a byte takes at any rate.
const PATIENCE: u32 = 1_000_000;

/// A port's state.
#[derive(Debug)]
pub struct Patience {
    /// The transmitter did not take the last byte.
    is_stuck: bool,
}

impl Patience {
    /// Makes a port that takes bytes, as far as is known.
    #[must_use]
    pub const fn new() -> Self {
        Self { is_stuck: false }
    }

    /// Sends a byte by `try_send`, which returns whether the transmitter took it. A port that did not take the last
    /// one is asked once: that costs one long wait, not one a byte.
    pub fn send(&mut self, mut try_send: impl FnMut() -> bool) {
        let polls = if self.is_stuck { 1 } else { PATIENCE };
        self.is_stuck = !(0..polls).any(|_| try_send());
    }
}

impl Default for Patience {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often each of so many bytes asks a port that takes none for so long.
    fn polls(bytes: usize, deaf_for: u32) -> Vec<u32> {
        let (mut patience, mut asked) = (Patience::new(), 0);
        let mut send = || {
            let before = asked;
            patience.send(|| {
                asked += 1;
                asked > deaf_for
            });
            asked - before
        };
        (0..bytes).map(|_| send()).collect()
    }

    #[test]
    fn a_busy_port_is_waited_for() {
        assert_eq!(polls(3, 500), [501, 1, 1]);
    }

    #[test]
    fn a_dead_port_costs_one_wait() {
        assert_eq!(polls(4, u32::MAX), [PATIENCE, 1, 1, 1]);
    }

    #[test]
    fn a_port_that_comes_back_is_waited_for_again() {
        let mut patience = Patience::new();
        patience.send(|| false);
        patience.send(|| true);
        let mut asked = 0;
        patience.send(|| {
            asked += 1;
            asked == 7
        });
        assert_eq!(asked, 7);
    }
}
