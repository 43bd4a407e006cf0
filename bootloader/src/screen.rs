//! The VGA text screen as a typewriter: rows scroll up, and only writes reach the slow video memory.

/// Rows of the screen.
const ROWS: usize = 25;
/// Characters of a row.
const COLUMNS: usize = 80;
/// Cells of the screen.
pub const CELLS: usize = ROWS * COLUMNS;
/// Light grey on black.
const ATTRIBUTE: u16 = 0x0700;

/// What the screen shows, and where the next character goes.
#[derive(Debug)]
pub struct Screen {
    shown: [u8; CELLS],
    next: usize,
}

impl Screen {
    /// Makes a screen of unknown contents, which scrolls away row by row.
    #[must_use]
    pub const fn new() -> Self {
        Self { shown: [b' '; CELLS], next: CELLS - COLUMNS }
    }

    /// Types `text`; `cell` is told the index and the value of every cell that changes.
    pub fn type_text(&mut self, text: &str, mut cell: impl FnMut(usize, u16)) {
        for byte in text.bytes() {
            if byte == b'\n' || self.next == CELLS {
                self.scroll(&mut cell);
            }
            if byte != b'\n' {
                let visible = if byte.is_ascii_graphic() { byte } else { b' ' };
                self.shown[self.next] = visible;
                cell(self.next, ATTRIBUTE | u16::from(visible));
                self.next += 1;
            }
        }
    }

    fn scroll(&mut self, cell: &mut impl FnMut(usize, u16)) {
        self.shown.copy_within(COLUMNS.., 0);
        self.shown[CELLS - COLUMNS..].fill(b' ');
        self.next = CELLS - COLUMNS;
        for (index, &byte) in self.shown.iter().enumerate() {
            cell(index, ATTRIBUTE | u16::from(byte));
        }
    }
}

impl Default for Screen {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rows that video memory shows after each of `texts` was typed.
    fn rows(texts: &[&str]) -> Vec<String> {
        let mut video = [0_u16; CELLS];
        let mut screen = Screen::new();
        for text in texts {
            screen.type_text(text, |index, value| video[index] = value);
        }
        let characters: Vec<_> = video.iter().map(|cell| char::from(cell.to_le_bytes()[0])).collect();
        characters.chunks(COLUMNS).map(|row| row.iter().collect::<String>().trim_end().to_owned()).collect()
    }

    #[test]
    fn lines_stand_at_the_bottom_in_order() {
        let rows = rows(&["one\ntw", "o\n", "three\u{7}"]);
        assert_eq!(rows[ROWS - 3..], ["one", "two", "three"]);
    }

    #[test]
    fn long_lines_wrap_and_old_ones_leave() {
        let long = "x".repeat(COLUMNS + 1);
        assert_eq!(rows(&[&long, "\n"])[ROWS - 3..], ["x".repeat(COLUMNS), "x".to_owned(), String::new()]);
        let many: String = (0..40).map(|i| format!("line {i}\n")).collect();
        assert_eq!(rows(&[&many])[0], "line 16");
    }
}
