//! How long a line of the log waits for the serial port, which is the guest's too: it may have slowed or stopped it.

/// Polls of a full transmitter that a line has, all its bytes together.
#[derive(Debug)]
pub(crate) struct Patience {
    /// What a line has.
    line: u32,
    /// What is left of it.
    left: u32,
    /// The last line that was begun did not get through, or this one.
    is_cut: bool,
    /// No byte of the line was sent or given up yet.
    is_start: bool,
}

impl Patience {
    /// Makes the wait of lines that have `line` polls each.
    pub(crate) const fn new(line: u32) -> Self {
        Self { line, left: line, is_cut: false, is_start: true }
    }

    /// Gives the lines to come `line` polls each.
    pub(crate) const fn limit(&mut self, line: u32) {
        self.line = line;
        self.left = line;
    }

    /// Sends a byte by `try_send`, which returns whether the transmitter took it. Where the line's polls are spent, the
    /// rest of it is dropped; the next one is begun, behind an end of this one, where a single poll finds room, so
    /// that a port that takes nothing costs one wait and not one a line.
    pub(crate) fn send(&mut self, byte: u8, mut try_send: impl FnMut(u8) -> bool) {
        if self.is_start && self.is_cut && try_send(b'\r') {
            (self.is_cut, self.left) = (false, self.line);
            self.wait(b'\n', &mut try_send);
        }
        self.wait(byte, &mut try_send);
        self.is_start = byte == b'\n';
        if self.is_start {
            self.left = self.line;
        }
    }

    fn wait(&mut self, byte: u8, try_send: &mut impl FnMut(u8) -> bool) {
        if self.is_cut {
            return;
        }
        while !try_send(byte) {
            if self.left == 0 {
                self.is_cut = true;
                return;
            }
            self.left -= 1;
            core::hint::spin_loop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A transmitter that takes a byte at each `period`-th poll.
    struct Port {
        period: u32,
        polls: u32,
        sent: String,
    }

    impl Port {
        fn new(period: u32) -> Self {
            Self { period, polls: 0, sent: String::new() }
        }

        /// Sends a text and returns the polls it took.
        fn send(&mut self, patience: &mut Patience, text: &str) -> u32 {
            let before = self.polls;
            for byte in text.bytes() {
                patience.send(byte, |byte| {
                    self.polls += 1;
                    let is_taken = self.polls.is_multiple_of(self.period);
                    if is_taken {
                        self.sent.push(char::from(byte));
                    }
                    is_taken
                });
            }
            self.polls - before
        }
    }

    #[test]
    fn a_port_that_keeps_pace_gets_every_line() {
        let (mut port, mut patience) = (Port::new(9), Patience::new(8 * 4));
        for _ in 0..3 {
            assert_eq!(port.send(&mut patience, "abc\n"), 36);
        }
        assert_eq!(port.sent, "abc\nabc\nabc\n");
    }

    #[test]
    fn a_slow_port_costs_a_bounded_wait_a_line() {
        let (mut port, mut patience) = (Port::new(10), Patience::new(35));
        let line = "a line that is too long for the port\n";
        // 35 polls in vain beside those that sent a byte.
        assert_eq!(port.send(&mut patience, line), 3 + 36);
        assert_eq!(port.sent, "a l");
        // The next poll finds room.
        assert_eq!(port.send(&mut patience, line), 1 + 3 + 36);
        assert_eq!(port.sent, "a l\r\na ");
    }

    #[test]
    fn a_dead_port_costs_one_wait_and_then_a_poll_a_line() {
        let (mut port, mut patience) = (Port::new(u32::MAX), Patience::new(100));
        assert_eq!(port.send(&mut patience, "abc\n"), 101);
        assert_eq!(port.send(&mut patience, "abc\nabc\n"), 2);
        port.period = 1;
        port.send(&mut patience, "def\n");
        assert_eq!(port.sent, "\r\ndef\n");
    }

    #[test]
    fn another_limit_holds_for_the_next_line() {
        let (mut port, mut patience) = (Port::new(u32::MAX), Patience::new(100));
        patience.limit(10);
        assert_eq!(port.send(&mut patience, "abc\n"), 11);
    }
}
