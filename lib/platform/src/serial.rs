//! The serial port as the command line names it: `serial=baud[/clock][,DPS[,iobase]]`.
//!
//! Example: `115200/1843200,8n1,0x3f8`. What is left out is a PC's first port: clock 1,843,200 Hz, eight
//! data bits, no parity, one stop bit, I/O base 0x3f8. Registers: 16550 data sheet, "Line Control Register".

use core::fmt;

use uart_16550::BaudRate;
use uart_16550::Config;
use uart_16550::spec::registers::{Parity, WordLength};

use crate::handoff::Console;
use crate::number::number;

/// Input clock of a PC's UART, in Hz.
const PC_CLOCK: u32 = 1_843_200;
/// I/O base of a PC's first serial port.
const FIRST_PORT: u16 = 0x3f8;
/// Line control register of eight data bits, no parity, one stop bit.
const EIGHT_NONE_ONE: u8 = 0b011;

/// A serial port and its line settings, as register values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SerialLine {
    /// I/O base.
    pub port: u16,
    /// Divisor latch.
    pub divisor: u16,
    /// Line control register.
    pub line_control: u8,
}

/// Which part of a `serial=` value is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SerialError {
    /// The baud rate is no number, zero, or not reachable from the clock by a 16-bit divisor.
    Baud,
    /// The clock is no number of Hz.
    Clock,
    /// The line format is not data bits 5 to 8, parity `n`, `o`, `e`, `m` or `s`, stop bits 0 to 2.
    Format,
    /// The I/O base is no number, zero, or leaves no room for eight ports.
    Port,
    /// More than three parts.
    Excess,
}

impl Default for SerialLine {
    fn default() -> Self {
        Self { port: FIRST_PORT, divisor: 1, line_control: EIGHT_NONE_ONE }
    }
}

impl SerialLine {
    /// Parses the value of `serial=`.
    ///
    /// # Errors
    ///
    /// The first part that is broken.
    pub fn parse(value: &str) -> Result<Self, SerialError> {
        let mut parts = value.split(',');
        let divisor = divisor(parts.next().unwrap_or_default())?;
        let line_control = parts.next().map_or(Ok(EIGHT_NONE_ONE), line_control)?;
        let port = parts.next().map_or(Ok(FIRST_PORT), port)?;
        match parts.next() {
            None => Ok(Self { port, divisor, line_control }),
            Some(_) => Err(SerialError::Excess),
        }
    }

    /// Returns a console on this port and nowhere else, with the log off.
    #[must_use]
    pub fn console(self) -> Console {
        let Self { port, divisor, line_control } = self;
        Console { serial_port: port, divisor, line_control, ..Console::default() }
    }
}

/// Gives the settings of `console`'s serial port as the UART driver takes them.
#[must_use]
pub fn uart_config(console: &Console) -> Config {
    Config {
        // A clock of 16 times the divisor makes the driver compute exactly that divisor at 1 baud.
        frequency: u32::from(console.divisor) * 16,
        baud_rate: BaudRate::Custom(1),
        data_bits: WordLength::from_raw_bits(console.line_control & 0b11),
        extra_stop_bits: console.line_control & 1 << 2 != 0,
        parity: Parity::from_raw_bits(console.line_control >> 3 & 0b111),
        ..Config::DEFAULT
    }
}

fn divisor(speed: &str) -> Result<u16, SerialError> {
    let (baud, clock) = match speed.split_once('/') {
        Some((baud, clock)) => (baud, number(clock).ok_or(SerialError::Clock)?),
        None => (speed, PC_CLOCK),
    };
    let baud = number(baud).filter(|&baud| baud != 0).ok_or(SerialError::Baud)?;
    let divisor = u16::try_from(clock / 16 / baud).map_err(|_| SerialError::Baud)?;
    if divisor == 0 { Err(SerialError::Baud) } else { Ok(divisor) }
}

fn line_control(format: &str) -> Result<u8, SerialError> {
    let &[data, parity, stop] = format.as_bytes() else { return Err(SerialError::Format) };
    let word_length = match data {
        b'5'..=b'8' => data - b'5',
        _ => return Err(SerialError::Format),
    };
    let parity = match parity.to_ascii_lowercase() {
        b'n' => 0b000,
        b'o' => 0b001,
        b'e' => 0b011,
        b'm' => 0b101,
        b's' => 0b111,
        _ => return Err(SerialError::Format),
    };
    // The register holds the number of extra stop bits, and some people write that: 0 and 1 are one bit.
    let extra_stop = match stop {
        b'0' | b'1' => 0,
        b'2' => 1,
        _ => return Err(SerialError::Format),
    };
    Ok(word_length | extra_stop << 2 | parity << 3)
}

fn port(base: &str) -> Result<u16, SerialError> {
    let base = number(base).and_then(|base| u16::try_from(base).ok()).ok_or(SerialError::Port)?;
    if base == 0 || base > u16::MAX - 7 { Err(SerialError::Port) } else { Ok(base) }
}

impl fmt::Display for SerialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Baud => "the baud rate cannot be made from the clock",
            Self::Clock => "the clock is not a number of Hz",
            Self::Format => "the line format is not like 8n1",
            Self::Port => "the I/O base is not a port number",
            Self::Excess => "there are more than three parts",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_form_and_its_defaults_mean_the_same() {
        let expected = SerialLine { port: 0x3f8, divisor: 1, line_control: 3 };
        for value in ["115200", "115200/1843200", "115200,8n1", "115200,8n0,0x3f8", "115200/1843200,8N1,1016"]
        {
            assert_eq!(SerialLine::parse(value), Ok(expected), "{value}");
        }
    }

    #[test]
    fn clock_format_and_port_reach_the_registers() {
        let line = SerialLine::parse("9600/3686400,7e2,0xe060");
        assert_eq!(line, Ok(SerialLine { port: 0xe060, divisor: 24, line_control: 0b0001_1110 }));
        let expected =
            Console { serial_port: 0xe060, divisor: 24, line_control: 0b0001_1110, ..Console::default() };
        assert_eq!(line.unwrap().console(), expected);
        assert_eq!(SerialLine::parse("115200,8n1,0xfff8").unwrap().port, 0xfff8);
    }

    #[test]
    fn each_format_has_a_value_of_the_line_control_register() {
        for (format, value) in [
            ("5n1", 0b0000_0000),
            ("6o1", 0b0000_1001),
            ("7e1", 0b0001_1010),
            ("8m1", 0b0010_1011),
            ("8s1", 0b0011_1011),
            ("8S0", 0b0011_1011),
            ("8n2", 0b0000_0111),
        ] {
            assert_eq!(line_control(format), Ok(value), "{format}");
        }
    }

    #[test]
    fn each_broken_part_is_named() {
        for (value, error) in [
            ("", SerialError::Baud),
            ("fast", SerialError::Baud),
            ("0", SerialError::Baud),
            ("230400", SerialError::Baud),
            ("1", SerialError::Baud),
            ("115200/", SerialError::Clock),
            ("115200,", SerialError::Format),
            ("115200,9n1", SerialError::Format),
            ("115200,8x1", SerialError::Format),
            ("115200,8n3", SerialError::Format),
            ("115200,8n1,", SerialError::Port),
            ("115200,8n1,0", SerialError::Port),
            ("115200,8n1,0xfff9", SerialError::Port),
            ("115200,8n1,0x13f8f", SerialError::Port),
            ("115200,8n1,0x3f8,4", SerialError::Excess),
        ] {
            assert_eq!(SerialLine::parse(value), Err(error), "{value}");
        }
    }

    #[test]
    fn the_driver_computes_the_same_registers() {
        for (divisor, line_control) in [(1, 3), (24, 0b0001_1110), (0xffff, 0b0010_1000)] {
            let config = uart_config(&Console { divisor, line_control, ..Console::default() });
            let (frequency, baud) = (config.frequency, config.baud_rate.to_integer());
            assert_eq!(uart_16550::spec::calc_divisor(frequency, baud, None), Ok(divisor));
            let stop = u8::from(config.extra_stop_bits) << 2;
            let lcr = config.data_bits.to_raw_bits() | stop | config.parity.to_raw_bits() << 3;
            assert_eq!(lcr, line_control);
        }
    }
}
