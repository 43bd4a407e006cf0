//! The last lines of the log, for a dump, a debugger or a dump of memory.

use core::fmt::{self, Write};

/// The newest bytes of a text of any length.
#[derive(Debug)]
pub(crate) struct Ring<const SIZE: usize> {
    bytes: [u8; SIZE],
    /// Where the next byte goes.
    next: usize,
    /// Bytes that are there.
    length: usize,
}

impl<const SIZE: usize> Ring<SIZE> {
    /// Makes an empty ring.
    pub(crate) const fn new() -> Self {
        Self { bytes: [0; SIZE], next: 0, length: 0 }
    }

    /// Returns the last `count` whole lines with their ends, byte by byte; the ring may have lost the first one's
    /// start.
    pub(crate) fn last_lines(&self, count: usize) -> impl Iterator<Item = u8> {
        let mut ends = 0;
        let length = (1..=self.length).find(|&back| {
            ends += usize::from(self.back(back) == b'\n');
            ends > count
        });
        let length = length.map_or(self.length, |back| back - 1);
        (1..=length).rev().map(|back| self.back(back))
    }

    /// Returns the byte that was written so many bytes ago, 1 for the newest.
    fn back(&self, back: usize) -> u8 {
        self.bytes[(self.next + SIZE - back) % SIZE]
    }
}

impl<const SIZE: usize> Write for Ring<SIZE> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            self.bytes[self.next] = byte;
            self.next = (self.next + 1) % SIZE;
            self.length = SIZE.min(self.length + 1);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last<const SIZE: usize>(ring: &Ring<SIZE>, count: usize) -> String {
        String::from_utf8(ring.last_lines(count).collect()).unwrap()
    }

    #[test]
    fn the_last_lines_come_in_their_order() {
        let mut ring = Ring::<64>::new();
        assert_eq!(last(&ring, 3), "");
        ring.write_str("one\ntwo\n").unwrap();
        assert_eq!((last(&ring, 1).as_str(), last(&ring, 9).as_str()), ("two\n", "one\ntwo\n"));
        assert_eq!(last(&ring, 0), "");
    }

    #[test]
    fn old_lines_give_way_to_new_ones() {
        let mut ring = Ring::<16>::new();
        for number in 0..100 {
            writeln!(ring, "line {number}").unwrap();
        }
        assert_eq!(last(&ring, 1), "line 99\n");
        assert_eq!(last(&ring, 9), "line 98\nline 99\n");
        ring.write_str("a line that is longer than the ring\n").unwrap();
        assert_eq!(last(&ring, 9), "er than the ring\n"[1..]);
    }
}
