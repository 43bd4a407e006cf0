//! The consoles: a serial port and the VGA text screen, both at once.

use core::fmt::{self, Write};

use bootloader::screen::{CELLS, Screen};
use bootloader::serial::Patience;
use log::{Level, LevelFilter, Log, Metadata, Record, warn};
use platform::handoff::Console;
use platform::serial::{SerialLine, uart_config};
use spin::Mutex;
use uart_16550::Uart16550;
use uart_16550::backend::PioBackend;

/// Physical address of VGA text memory.
const VGA_TEXT: usize = 0xb_8000;

static CONSOLES: Mutex<Consoles> = Mutex::new(Consoles {
    open: false,
    serial: None,
    patience: Patience::new(),
    screen: Screen::new(),
    log_serial: false,
    log_vga: false,
});

struct Consoles {
    open: bool,
    serial: Option<Uart16550<PioBackend>>,
    patience: Patience,
    screen: Screen,
    log_serial: bool,
    log_vga: bool,
}

/// Opens both consoles; `log` says which of them the log goes to, and how loud.
pub(super) fn open(line: Option<SerialLine>, log: &Console) {
    let mut consoles = CONSOLES.lock();
    consoles.open = true;
    consoles.serial = line.and_then(open_serial);
    consoles.log_serial = log.serial_port != 0;
    consoles.log_vga = log.vga != 0;
    let absent = line.is_some() && consoles.serial.is_none();
    drop(consoles);
    // A second opening finds the logger set, which is right.
    let _ = log::set_logger(&Logger);
    log::set_max_level(LevelFilter::iter().nth(log.level.into()).unwrap_or(LevelFilter::Trace));
    if absent {
        warn!("no serial port answers where serial= says");
    }
}

/// Says whether [`open`] was called.
pub(super) fn is_open() -> bool {
    CONSOLES.lock().open
}

/// Says whether a serial port answered.
pub(super) fn has_serial() -> bool {
    CONSOLES.lock().serial.is_some()
}

/// Writes a line on every console that there is, whatever the log goes to.
pub(super) fn say_everywhere(line: fmt::Arguments<'_>) {
    let mut consoles = CONSOLES.lock();
    (consoles.log_serial, consoles.log_vga) = (true, true);
    // Neither console reports failure.
    let _ = writeln!(consoles, "{line}");
}

/// Takes the consoles from whoever was writing when things went wrong.
pub(super) fn seize() {
    // SAFETY: one processor, interrupts off: the writer that holds the lock never goes on.
    unsafe { CONSOLES.force_unlock() }
}

fn open_serial(line: SerialLine) -> Option<Uart16550<PioBackend>> {
    // SAFETY: the user named these eight ports, and nothing else drives them before the guest runs.
    let mut uart = unsafe { Uart16550::new_port(line.port) }.ok()?;
    uart.init(uart_config(&line.console())).ok()?;
    Some(uart)
}

impl Write for Consoles {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if let Some(serial) = self.serial.as_mut().filter(|_| self.log_serial) {
            let mut send = |byte| self.patience.send(|| serial.try_send_byte(byte).is_ok());
            for byte in text.bytes() {
                if byte == b'\n' {
                    send(b'\r');
                }
                send(byte);
            }
        }
        if self.log_vga {
            self.screen.type_text(text, set_cell);
        }
        Ok(())
    }
}

fn set_cell(index: usize, value: u16) {
    let cells = core::ptr::with_exposed_provenance_mut::<u16>(VGA_TEXT);
    // SAFETY: video memory is mapped and nothing else in the bootloader writes it; the index is bounded.
    unsafe { cells.wrapping_add(index % CELLS).write_volatile(value) }
}

struct Logger;

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let mark = if record.level() <= Level::Warn { "warning: " } else { "" };
        // Neither console reports failure.
        let _ = writeln!(CONSOLES.lock(), "stage=bootloader {mark}{}", record.args());
    }

    fn flush(&self) {}
}
