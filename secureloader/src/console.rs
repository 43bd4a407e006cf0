//! Plain output on the consoles that the bootloader has already set up: serial port and VGA text.

use core::fmt;
use hw::{PortWidth, Ports};
use platform::handoff::Console;

/// A screen of VGA text.
pub trait Screen {
    /// Reads one character cell.
    fn get(&self, cell: usize) -> u16;
    /// Writes one character cell, character in the low byte.
    fn put(&mut self, cell: usize, value: u16);
}

/// Cells in a row of VGA text.
const COLUMNS: usize = 80;
/// Cells of the screen.
pub const CELLS: usize = 25 * COLUMNS;
const LIGHT_GREY: u16 = 0x0700;
/// Line status register, offset from the I/O base (16550 data sheet, "Line Status Register").
const LINE_STATUS: u16 = 5;
/// The transmitter holding register is empty.
const TRANSMITTER_EMPTY: u32 = 1 << 5;
/// Polls until a port that never becomes ready is taken as absent.
const POLLS: u32 = 1 << 16;

/// A writer over both consoles.
#[derive(Debug)]
pub struct Output<P, S> {
    console: Console,
    ports: P,
    screen: S,
    cell: usize,
}

impl<P: Ports, S: Screen> Output<P, S> {
    /// Makes a writer over the consoles that `console` names; the screen is written in its last row.
    pub const fn new(console: Console, ports: P, screen: S) -> Self {
        Self { console, ports, screen, cell: CELLS - COLUMNS }
    }

    fn send(&mut self, byte: u8) {
        let port = self.console.serial_port;
        if port == 0 {
            return;
        }
        let status = port.wrapping_add(LINE_STATUS);
        for _ in 0..POLLS {
            if self.ports.read(status, PortWidth::Byte) & TRANSMITTER_EMPTY != 0 {
                self.ports.write(port, PortWidth::Byte, u32::from(byte));
                return;
            }
        }
        self.console.serial_port = 0;
    }

    fn show(&mut self, byte: u8) {
        if self.console.vga == 0 {
            return;
        }
        if byte == b'\n' || self.cell == CELLS {
            self.scroll();
        }
        if byte != b'\n' {
            self.screen.put(self.cell, LIGHT_GREY | u16::from(byte));
            self.cell += 1;
        }
    }

    /// Moves all rows up by one, so that the bootloader's stay to be read.
    fn scroll(&mut self) {
        self.cell = CELLS - COLUMNS;
        for cell in 0..self.cell {
            let value = self.screen.get(cell + COLUMNS);
            self.screen.put(cell, value);
        }
        (self.cell..CELLS).for_each(|cell| self.screen.put(cell, LIGHT_GREY));
    }
}

impl<P: Ports, S: Screen> fmt::Write for Output<P, S> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if byte == b'\n' {
                self.send(b'\r');
            }
            self.send(byte);
            self.show(byte);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::cell::RefCell;
    use core::fmt::Write;

    #[derive(Default)]
    struct Uart {
        ready: bool,
        polls: RefCell<u32>,
        sent: RefCell<Vec<(u16, u8)>>,
    }

    impl Ports for &Uart {
        fn read(&self, port: u16, _width: PortWidth) -> u32 {
            assert_eq!(port, 0x2fd);
            *self.polls.borrow_mut() += 1;
            if self.ready { TRANSMITTER_EMPTY } else { 0 }
        }

        fn write(&self, port: u16, _width: PortWidth, value: u32) {
            self.sent.borrow_mut().push((port, value.to_le_bytes()[0]));
        }
    }

    impl Screen for [u16; CELLS] {
        fn get(&self, cell: usize) -> u16 {
            self[cell]
        }
        fn put(&mut self, cell: usize, value: u16) {
            self[cell] = value;
        }
    }

    /// A screen on which the bootloader left something in the row above the last.
    fn output(uart: &Uart, vga: u8) -> Output<&Uart, [u16; CELLS]> {
        let mut screen = [LIGHT_GREY; CELLS];
        screen[CELLS - 2 * COLUMNS] = 0x0742;
        Output::new(Console { serial_port: 0x2f8, vga, ..Console::default() }, uart, screen)
    }

    fn shown(screen: &[u16; CELLS]) -> Vec<(usize, u16)> {
        let cells = screen.iter().enumerate().filter(|(_, value)| **value != LIGHT_GREY);
        cells.map(|(cell, &value)| (cell, value)).collect()
    }

    #[test]
    fn a_line_reaches_serial_and_screen() {
        let uart = Uart { ready: true, ..Uart::default() };
        let mut output = output(&uart, 1);
        write!(output, "a\nb").unwrap();
        assert_eq!(*uart.sent.borrow(), [(0x2f8, b'a'), (0x2f8, b'\r'), (0x2f8, b'\n'), (0x2f8, b'b')]);
        assert_eq!(shown(&output.screen), [(1760, 0x0742), (1840, 0x0761), (1920, 0x0762)]);
    }

    #[test]
    fn a_line_that_is_too_long_goes_on_in_the_next_row() {
        let uart = Uart { ready: true, ..Uart::default() };
        let mut output = output(&uart, 1);
        write!(output, "{:81}c", "a").unwrap();
        assert_eq!((output.screen[1840], output.screen[1921]), (0x0761, 0x0763));
    }

    #[test]
    fn a_dead_port_is_given_up_once() {
        let uart = Uart::default();
        let mut output = output(&uart, 0);
        write!(output, "abc").unwrap();
        assert_eq!(*uart.polls.borrow(), POLLS);
        assert!(uart.sent.borrow().is_empty());
        assert_eq!(shown(&output.screen), [(1840, 0x0742)]);
    }
}
