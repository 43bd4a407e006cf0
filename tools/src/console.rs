//! A console that the machine writes to a file, read while it grows.

use std::fs::File;
use std::io::{ErrorKind, Read, Result};
use std::path::PathBuf;

/// Longest line kept; a guest that never ends its line is cut here.
const LONGEST_LINE: usize = 4096;

/// Reader of a growing file, which hands out whole lines only.
#[derive(Debug)]
pub struct Console {
    path: PathBuf,
    file: Option<File>,
    lines: LineSplitter,
}

impl Console {
    /// A reader of the file at `path`, which need not exist yet.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path, file: None, lines: LineSplitter::default() }
    }

    /// Lines that were completed since the last call.
    ///
    /// # Errors
    ///
    /// The file exists and cannot be read.
    pub fn read_lines(&mut self) -> Result<Vec<String>> {
        if self.file.is_none() {
            match File::open(&self.path) {
                Ok(file) => self.file = Some(file),
                Err(why) if why.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
                Err(why) => return Err(why),
            }
        }
        let mut bytes = Vec::new();
        if let Some(file) = &mut self.file {
            file.read_to_end(&mut bytes)?;
        }
        Ok(self.lines.push(&bytes))
    }

    /// What stands behind the last line end, if anything does: a prompt, or a line cut off.
    #[must_use]
    pub fn partial_line(&self) -> Option<String> {
        let text = clean(&self.lines.rest);
        (!text.is_empty()).then_some(text)
    }
}

#[derive(Debug, Default)]
struct LineSplitter {
    rest: Vec<u8>,
}

impl LineSplitter {
    fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for &byte in bytes {
            if byte != b'\n' {
                self.rest.push(byte);
            }
            if byte == b'\n' || self.rest.len() == LONGEST_LINE || self.moves_cursor() {
                lines.push(clean(&self.rest));
                self.rest.clear();
            }
        }
        lines.retain(|line| !line.is_empty());
        lines
    }

    /// Whether the line ends in an escape sequence that moves the cursor, as programs send that draw a screen.
    fn moves_cursor(&self) -> bool {
        let Some(escape) = self.rest.iter().rposition(|&byte| byte == 0x1b) else { return false };
        let Some(parameters) =
            self.rest[escape..].strip_prefix(b"\x1b[").and_then(|text| text.strip_suffix(b"H"))
        else {
            return false;
        };
        parameters.iter().all(|&digit| digit.is_ascii_digit() || digit == b';')
    }
}

/// The text of a line without colours, cursor movements and other control characters.
fn clean(bytes: &[u8]) -> String {
    let plain = strip_ansi_escapes::strip(bytes);
    let text = String::from_utf8_lossy(&plain);
    text.chars().filter(|c| !c.is_control()).collect::<String>().trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_line_is_handed_out_once_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("serial");
        let mut console = Console::new(path.clone());
        assert!(console.read_lines().unwrap().is_empty());

        let mut file = File::create(path).unwrap();
        file.write_all(b"one\r\n\r\ntw").unwrap();
        assert_eq!(console.read_lines().unwrap(), ["one"]);
        assert_eq!(console.partial_line().as_deref(), Some("tw"));
        file.write_all(b"o\r\nthree\n").unwrap();
        assert_eq!(console.read_lines().unwrap(), ["two", "three"]);
        assert_eq!(console.partial_line(), None);
    }

    #[test]
    fn colours_and_broken_text_do_not_hide_words() {
        let mut lines = LineSplitter::default();
        let read = lines.push(b"\x1b[0;31mMem\x1b[0;37mtest86+ v6\xff\r\n");
        assert_eq!(read, ["Memtest86+ v6\u{fffd}"]);
    }

    #[test]
    fn a_moving_cursor_ends_the_line() {
        let mut lines = LineSplitter::default();
        assert_eq!(lines.push(b"\x1b[2J\x1b[01;01HMemtest86+ v6H\x1b[02;01HCPU"), ["Memtest86+ v6H"]);
    }

    #[test]
    fn an_endless_line_is_cut() {
        let mut lines = LineSplitter::default();
        let read = lines.push(&[b'x'; LONGEST_LINE * 2 + 1]);
        assert_eq!(read.len(), 2);
        assert_eq!(lines.rest.len(), 1);
    }
}
