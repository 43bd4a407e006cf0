//! The log: serial line and VGA text, and a ring of the last lines for the dump of a stop.
//!
//! A line is `[CPU LEVEL category] text`. The ring has what the log tells of a boot also where the consoles are
//! to show less. The lock is never taken in an NMI, so a line that was begun is always finished.
//!
//! UNSAFETY: names an I/O port range and VGA memory.
#![expect(unsafe_code, reason = "console devices")]

use crate::machine;
use crate::memory::host;
use crate::ring::Ring;
use crate::smp::percpu;
use ::log::{LevelFilter, Log, Metadata, Record};
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicUsize, Ordering};
use platform::handoff::Console;
use spin::{Mutex, MutexGuard};
use uart_16550::Uart16550;
use uart_16550::backend::PioBackend;

/// Polls of a full transmitter before a byte is dropped: a line that nobody drives must not stop us.
const PATIENCE: u32 = 1_000_000;
const RING_SIZE: usize = 16 * 1024;
/// What the ring has of a boot in any case: its stages.
const BOOT_LEVEL: LevelFilter = LevelFilter::Info;
/// What the ring has in any case once the guest runs.
const GUEST_LEVEL: LevelFilter = LevelFilter::Warn;
const COLUMNS: usize = 80;
const ROWS: usize = 25;
const GREY_ON_BLACK: u16 = 0x0700;

static OUTPUT: Mutex<Output> = Mutex::new(Output { serial: None, is_serial_stuck: false, vga: None });
/// Apart from the output, so that its zeros take no room in the image.
static RING: Mutex<Ring<RING_SIZE>> = Mutex::new(Ring::new());
/// The least level that the consoles show, as a number.
static SHOWN: AtomicUsize = AtomicUsize::new(0);
static LOGGER: Logger = Logger;

/// Starts the consoles that the boot command line names. The bootloader has initialised the serial port.
pub(crate) fn start(console: &Console) {
    let mut output = OUTPUT.lock();
    if console.serial_port != 0 {
        // SAFETY: the command line says that a 16550 sits there.
        output.serial = unsafe { Uart16550::new_port(console.serial_port) }.ok();
    }
    output.vga = (console.vga != 0).then_some(Text { row: ROWS - 1, column: 0 });
    drop(output);
    let level = match console.level {
        0 => LevelFilter::Off,
        1 => LevelFilter::Error,
        2 => LevelFilter::Warn,
        3 => LevelFilter::Info,
        4 => LevelFilter::Debug,
        _ => LevelFilter::Trace,
    };
    SHOWN.store(level as usize, Ordering::Relaxed);
    ::log::set_max_level(level.max(BOOT_LEVEL));
    // Fails only if a logger was set before, and this is called once.
    let _ = ::log::set_logger(&LOGGER);
}

/// The guest runs: what it brings about is written to the ring only where the consoles show it, or it is a warning.
pub(crate) fn end_boot() {
    let shown = LevelFilter::iter().nth(SHOWN.load(Ordering::Relaxed)).unwrap_or(LevelFilter::Trace);
    ::log::set_max_level(shown.max(GUEST_LEVEL));
}

/// Prints whatever the log level: the summary, and the dump of a stop.
pub(crate) fn print(text: fmt::Arguments<'_>) {
    let _ = writeln!(OUTPUT.lock(), "{text}");
}

/// As [`print`], though another CPU may have died with the lock.
pub(crate) fn print_at_any_price(text: fmt::Arguments<'_>) {
    let mut output = try_hard(&OUTPUT);
    let _ = writeln!(output, "{text}");
}

/// As [`print_at_any_price`], without ending the line.
pub(crate) fn write_at_any_price(text: &str) {
    let _ = try_hard(&OUTPUT).write_str(text);
}

/// Prints the log's last lines, each behind `log `, though another CPU may have died with the lock.
pub(crate) fn print_last_lines(count: usize) {
    let ring = try_hard(&RING);
    let mut output = try_hard(&OUTPUT);
    let mut is_start = true;
    for byte in ring.last_lines(count) {
        if is_start {
            "log ".bytes().for_each(|byte| output.put(byte));
        }
        output.put(byte);
        is_start = byte == b'\n';
    }
}

fn try_hard<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    for _ in 0..PATIENCE {
        if let Some(guard) = lock.try_lock() {
            return guard;
        }
        core::hint::spin_loop();
    }
    // SAFETY: the holder is stopped or this very CPU; what it had begun to write is lost.
    unsafe { lock.force_unlock() };
    lock.lock()
}

struct Logger;

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= ::log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        let category = record.target().rsplit("::").next().unwrap_or_default();
        let cpu = if machine::is_ready() { percpu::current().index } else { 0 };
        let level = record.level().as_str();
        let _ = writeln!(RING.lock(), "[{cpu} {level} {category}] {}", record.args());
        if record.level() as usize <= SHOWN.load(Ordering::Relaxed) {
            print(format_args!("[{cpu} {level} {category}] {}", record.args()));
        }
    }

    fn flush(&self) {}
}

struct Output {
    serial: Option<Uart16550<PioBackend>>,
    /// The transmitter did not take the last byte.
    is_serial_stuck: bool,
    vga: Option<Text>,
}

impl Write for Output {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.bytes().for_each(|byte| self.put(byte));
        Ok(())
    }
}

impl Output {
    fn put(&mut self, byte: u8) {
        if byte == b'\n' {
            self.send(b'\r');
        }
        self.send(byte);
        if let Some(text) = &mut self.vga {
            text.put(byte);
        }
    }

    fn send(&mut self, byte: u8) {
        let Some(serial) = &mut self.serial else { return };
        // The guest owns the port too, and may have stopped it: that costs one long wait, not one a byte.
        let polls = if self.is_serial_stuck { 1 } else { PATIENCE };
        for _ in 0..polls {
            if serial.try_send_byte(byte).is_ok() {
                self.is_serial_stuck = false;
                return;
            }
            core::hint::spin_loop();
        }
        self.is_serial_stuck = true;
    }
}

/// VGA text mode, 80 columns by 25 rows, scrolling.
struct Text {
    row: usize,
    column: usize,
}

impl Text {
    fn put(&mut self, byte: u8) {
        if byte == b'\n' || self.column == COLUMNS {
            self.column = 0;
            self.row += 1;
        }
        if self.row == ROWS {
            self.scroll();
        }
        if byte != b'\n' {
            Self::put_cell(self.row, self.column, GREY_ON_BLACK | u16::from(byte));
            self.column += 1;
        }
    }

    fn scroll(&mut self) {
        self.row = ROWS - 1;
        for row in 1..ROWS {
            for column in 0..COLUMNS {
                // SAFETY: inside the mapped page: 4000 bytes.
                let value = unsafe { Self::cell(row, column).read_volatile() };
                Self::put_cell(row - 1, column, value);
            }
        }
        for column in 0..COLUMNS {
            Self::put_cell(self.row, column, GREY_ON_BLACK);
        }
    }

    fn put_cell(row: usize, column: usize, value: u16) {
        // SAFETY: inside the mapped page: 4000 bytes.
        unsafe { Self::cell(row, column).write_volatile(value) }
    }

    fn cell(row: usize, column: usize) -> *mut u16 {
        host::vga_text().wrapping_add(row * COLUMNS + column)
    }
}
