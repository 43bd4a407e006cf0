//! The log: serial line and VGA text, and a ring of the last lines for the dump of a stop.
//!
//! A line is `[CPU LEVEL category] text`. The ring has what the log tells of a boot also where the consoles are
//! to show less. The lock is never taken in an NMI, so a line that was begun is always finished. Once the guest runs,
//! [`Limits`] bounds what it can have the log say. A stop has consoles of its own, whoever holds the others.
//!
//! UNSAFETY: names an I/O port range and VGA memory.
#![expect(unsafe_code, reason = "console devices")]

use crate::features::features;
use crate::log_limit::{self, Limits, Reason};
use crate::memory::host;
use crate::patience::Patience;
use crate::ring::Ring;
use crate::smp::cpus;
use crate::smp::percpu;
use ::log::{LevelFilter, Log, Metadata, Record};
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use hw::Msrs;
use hw::bare::Processor;
use hw::bare::processor::time_stamp;
use platform::handoff::Console;
use spin::{Mutex, MutexGuard};
use uart_16550::Uart16550;
use uart_16550::backend::PioBackend;
use x86::msr::Msr;

/// Polls of a full transmitter that a line of a boot or a stop has, or of a lock before a stop goes on without it:
/// neither a port that nobody drives nor a CPU that died must hold us up.
const PATIENCE: u32 = 1_000_000;
/// Polls that a line has once the guest runs, which waits for it and may have slowed the port. A poll is about a
/// microsecond: enough for a line at 9,600 baud.
const GUEST_PATIENCE: u32 = 100_000;
const RING_SIZE: usize = 16 * 1024;
/// What the ring has of a boot in any case: its stages.
const BOOT_LEVEL: LevelFilter = LevelFilter::Info;
/// What the ring has in any case once the guest runs.
const GUEST_LEVEL: LevelFilter = LevelFilter::Warn;
const COLUMNS: usize = 80;
const ROWS: usize = 25;
const GREY_ON_BLACK: u16 = 0x0700;

static OUTPUT: Mutex<Output> = Mutex::new(Output::NONE);
/// The same consoles for a stop.
static STOP_OUTPUT: Mutex<Output> = Mutex::new(Output::NONE);
/// The CPU that holds [`STOP_OUTPUT`].
static STOP_HOLDER: AtomicUsize = AtomicUsize::new(usize::MAX);
static LIMITS: Mutex<Limits> = Mutex::new(Limits::new());
/// What is logged may be the guest's doing.
static IS_LIMITED: AtomicBool = AtomicBool::new(false);
/// Apart from the output, so that its zeros take no room in the image.
static RING: Mutex<Ring<RING_SIZE>> = Mutex::new(Ring::new());
/// The least level that the consoles show, as a number.
static SHOWN: AtomicUsize = AtomicUsize::new(0);
static LOGGER: Logger = Logger;

/// Starts the log, on the serial port that the boot command line names. The bootloader has initialised it.
pub(crate) fn start(console: &Console) {
    for place in [&OUTPUT, &STOP_OUTPUT] {
        let mut output = place.lock();
        if console.serial_port != 0 {
            // SAFETY: the command line says that a 16550 sits there. Ports are no memory: who writes to them at once
            // garbles lines, and no more.
            output.serial = unsafe { Uart16550::new_port(console.serial_port) }.ok();
        }
    }
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

/// Shows the log on the screen too, where the boot command line has it so, now that its memory is mapped.
pub(crate) fn show_on_screen(console: &Console) {
    for place in [&OUTPUT, &STOP_OUTPUT] {
        place.lock().vga = (console.vga != 0).then_some(Text { row: ROWS - 1, column: 0 });
    }
}

/// The guest runs: what it brings about is written to the ring only where the consoles show it, or it is a warning.
pub(crate) fn end_boot() {
    let shown = LevelFilter::iter().nth(SHOWN.load(Ordering::Relaxed)).unwrap_or(LevelFilter::Trace);
    ::log::set_max_level(shown.max(GUEST_LEVEL));
    IS_LIMITED.store(true, Ordering::Relaxed);
    OUTPUT.lock().patience.limit(GUEST_PATIENCE);
}

/// Prints whatever the log level: the summary, and the dump of a stop.
pub(crate) fn print(text: fmt::Arguments<'_>) {
    let _ = writeln!(OUTPUT.lock(), "{text}");
}

/// Prints how many lines of which reasons were left out and not told of yet.
pub(crate) fn print_left_out() {
    for (Reason { module, line }, count) in LIMITS.lock().left_out() {
        print(format_args!("{count} more lines of {module}:{line} were left out"));
    }
}

/// As [`print`], for a stop: though another CPU may hold a console for ever.
pub(crate) fn print_at_any_price(text: fmt::Arguments<'_>) {
    with_stop_output(|output| {
        let _ = writeln!(output, "{text}");
    });
}

/// As [`print_at_any_price`], without ending the line.
pub(crate) fn write_at_any_price(text: &str) {
    with_stop_output(|output| {
        let _ = output.write_str(text);
    });
}

/// Prints the log's last lines, each behind `log `, as [`print_at_any_price`] does.
pub(crate) fn print_last_lines(count: usize) {
    let Some(ring) = try_for_a_while(&RING) else {
        return print_at_any_price(format_args!("the log is in use by a CPU that does not go on"));
    };
    with_stop_output(|output| {
        let mut is_start = true;
        for byte in ring.last_lines(count) {
            if is_start {
                "log ".bytes().for_each(|byte| output.put(byte));
            }
            output.put(byte);
            is_start = byte == b'\n';
        }
    });
}

/// Calls `act` with the consoles of a stop. Where another CPU has them for too long, nothing is printed.
fn with_stop_output(act: impl FnOnce(&mut Output)) {
    // Lines of CPUs that still run are kept apart from ours where that can be had.
    static IS_OUTPUT_LOST: AtomicBool = AtomicBool::new(false);
    let others = if IS_OUTPUT_LOST.load(Ordering::Relaxed) { None } else { try_for_a_while(&OUTPUT) };
    IS_OUTPUT_LOST.fetch_or(others.is_none(), Ordering::Relaxed);
    let own = own_index();
    let output = try_for_a_while(&STOP_OUTPUT).or_else(|| {
        if STOP_HOLDER.load(Ordering::Relaxed) != own {
            return None;
        }
        // SAFETY: this CPU took the lock and stopped once more while it printed: that code never goes on.
        unsafe { STOP_OUTPUT.force_unlock() };
        STOP_OUTPUT.try_lock()
    });
    if let Some(mut output) = output {
        STOP_HOLDER.store(own, Ordering::Relaxed);
        act(&mut output);
        STOP_HOLDER.store(usize::MAX, Ordering::Relaxed);
    }
}

/// Takes a lock, unless another CPU, or this one, has it for too long.
pub(crate) fn try_for_a_while<T>(lock: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    for _ in 0..PATIENCE {
        if let Some(guard) = lock.try_lock() {
            return Some(guard);
        }
        core::hint::spin_loop();
    }
    None
}

fn own_index() -> usize {
    if cpus::is_ready() { percpu::current().index } else { 0 }
}

struct Logger;

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= ::log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        let mut left_out = 0;
        if IS_LIMITED.load(Ordering::Relaxed) {
            let module = record.module_path_static().unwrap_or_default();
            let reason = Reason { module, line: record.line().unwrap_or(0) };
            let Some(count) = LIMITS.lock().admit(reason, now()) else { return };
            left_out = count;
        }
        if left_out != 0 {
            write_line(record, format_args!("{left_out} lines like the next were left out"));
        }
        write_line(record, *record.args());
    }

    fn flush(&self) {}
}

/// The guest may write the counter, and what it wrote is taken off again.
fn now() -> u64 {
    let adjustment = || Processor.read(Msr::IA32_TSC_ADJUST).ok();
    log_limit::time(time_stamp(), features().has_tsc_adjust.then(adjustment).flatten())
}

/// Writes a line of `record`'s kind.
fn write_line(record: &Record<'_>, text: fmt::Arguments<'_>) {
    let category = record.target().rsplit("::").next().unwrap_or_default();
    let (cpu, level) = (own_index(), record.level().as_str());
    let _ = writeln!(RING.lock(), "[{cpu} {level} {category}] {text}");
    if record.level() as usize <= SHOWN.load(Ordering::Relaxed) {
        print(format_args!("[{cpu} {level} {category}] {text}"));
    }
}

struct Output {
    serial: Option<Uart16550<PioBackend>>,
    patience: Patience,
    vga: Option<Text>,
}

impl Write for Output {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.bytes().for_each(|byte| self.put(byte));
        Ok(())
    }
}

impl Output {
    const NONE: Self = Self { serial: None, patience: Patience::new(PATIENCE), vga: None };

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
        self.patience.send(byte, |byte| serial.try_send_byte(byte).is_ok());
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
