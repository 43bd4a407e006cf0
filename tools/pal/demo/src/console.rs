//! Standard output.

use crate::start::write;
use core::fmt::{self, Write};

/// Longest text that is written in one go.
const BUFFER_BYTES: usize = 256;

/// Writes formatted text to standard output.
#[macro_export]
macro_rules! say {
    ($($text:tt)*) => {
        $crate::console::say(format_args!($($text)*))
    };
}

/// Writes `text` to standard output.
pub fn say(text: fmt::Arguments<'_>) {
    let mut buffer = Buffer { bytes: [0; BUFFER_BYTES], count: 0 };
    // Writing to a buffer does not fail.
    let _ = buffer.write_fmt(text);
    buffer.flush();
}

struct Buffer {
    bytes: [u8; BUFFER_BYTES],
    count: usize,
}

impl Buffer {
    fn flush(&mut self) {
        write(&self.bytes[..self.count]);
        self.count = 0;
    }
}

impl Write for Buffer {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for &byte in text.as_bytes() {
            if self.count == BUFFER_BYTES {
                self.flush();
            }
            self.bytes[self.count] = byte;
            self.count += 1;
        }
        Ok(())
    }
}
