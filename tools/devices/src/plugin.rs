//! The emulator's plugin: how it is found, and the devices' way to and from the machine.
//!
//! UNSAFETY: the emulator calls in by the C++ interface of its devices.
#![expect(unsafe_code, reason = "called by a foreign program")]

use crate::emulator::{self, Machine, Timer};
use crate::engine::{self, Asked, Engine};
use crate::unit::{self, Unit};
use crate::{bus::Bus, dmar};
use std::ffi::{c_int, c_void};
use std::sync::Mutex;

/// Address of the engine's registers.
const ENGINE: u64 = 0xfed5_0000;
/// How often the BIOS's tables are looked for, in microseconds.
const TABLES_PERIOD: u32 = 1000;

struct Devices {
    unit: Unit,
    engine: Engine,
    repetition: Option<Timer>,
    tables: Option<Timer>,
}

/// The emulator has one thread, but an access of a device's may lead back to a device.
static DEVICES: Mutex<Option<Devices>> = Mutex::new(None);

/// Calls `f` with the devices; not where one of them is at work, as no device answers another's access here.
fn with<T>(f: impl FnOnce(&mut Devices) -> T) -> Option<T> {
    DEVICES.try_lock().ok()?.as_mut().map(f)
}

/// A C++ object as the emulator's `bx_devmodel_c`: its virtual table, and room for what its base class holds.
#[repr(C)]
struct Model {
    table: *const VirtualTable,
    base: [u64; 63],
}

/// In the order of the class's declaration.
#[repr(C)]
struct VirtualTable {
    destructors: [extern "C" fn(*mut c_void); 2],
    init: extern "C" fn(*mut c_void),
    reset: extern "C" fn(*mut c_void, u32),
    others: [extern "C" fn(*mut c_void); 3],
}

static TABLE: VirtualTable = VirtualTable { destructors: [nothing; 2], init, reset, others: [nothing; 3] };

/// What the emulator calls when it has loaded the plugin, with 1 for mode; at its end with 0; and with 2 to ask what the
/// plugin is.
#[unsafe(no_mangle)]
extern "C" fn libxmhf_plugin_entry(plugin: *mut c_void, kind: u16, mode: u8) -> c_int {
    const LOAD: u8 = 1;
    const ASK_KIND: u8 = 2;
    const OPTIONAL_DEVICE: c_int = 4;
    match mode {
        LOAD => {
            let model = Box::leak(Box::new(Model { table: &raw const TABLE, base: [0; 63] }));
            // SAFETY: a model as described, which is never freed.
            unsafe { emulator::add_device(plugin, kind, (&raw mut *model).cast()) }
            0
        }
        ASK_KIND => OPTIONAL_DEVICE,
        _ => {
            with(|devices| {
                eprintln!(
                    "devices: {} accesses passed, {} were blocked",
                    devices.unit.passed, devices.unit.blocked
                )
            });
            0
        }
    }
}

extern "C" fn nothing(_: *mut c_void) {}

/// Makes the devices and has their registers handled.
extern "C" fn init(model: *mut c_void) {
    let devices = Devices {
        unit: Unit::new(),
        engine: Engine::new(),
        repetition: Timer::new(model, repeat, c"xmhf.dma"),
        tables: Timer::new(model, add_tables, c"xmhf.acpi"),
    };
    let is_handled = emulator::handle_memory(model, unit::BASE, unit::SIZE, read_unit, write_unit)
        && emulator::handle_memory(model, ENGINE, engine::SIZE, read_engine, write_engine);
    if !is_handled || devices.repetition.is_none() || devices.tables.is_none() {
        eprintln!("devices: the emulator takes no more memory handlers or timers");
        std::process::exit(3);
    }
    if let Ok(mut place) = DEVICES.lock() {
        *place = Some(devices);
    }
}

/// The machine was reset; its BIOS makes new tables.
extern "C" fn reset(_: *mut c_void, _: u32) {
    with(|devices| {
        devices.unit.reset();
        if let Some(timer) = devices.repetition {
            timer.set(0);
        }
        if let Some(timer) = devices.tables {
            timer.set(TABLES_PERIOD);
        }
    });
}

extern "C" fn repeat(_: *mut c_void) {
    with(|Devices { unit, engine, .. }| engine.repeat(unit, &mut Machine));
}

extern "C" fn add_tables(_: *mut c_void) {
    with(|devices| {
        let Some(patch) = dmar::patch(&mut Machine) else { return };
        patch.writes.iter().for_each(|(at, bytes)| Machine.write(*at, bytes));
        if !emulator::write_protected(patch.pointer.0, &patch.pointer.1) {
            eprintln!("devices: no way to the root pointer of the BIOS");
        }
        if let Some(timer) = devices.tables {
            timer.set(0);
        }
    });
}

extern "C" fn read_unit(at: u64, size: u32, data: *mut u8, _: *mut c_void) -> bool {
    // SAFETY: the emulator's buffer of that size.
    let data = unsafe { std::slice::from_raw_parts_mut(data, size as usize) };
    data.fill(0xff);
    with(|devices| devices.unit.read(offset(at), data));
    true
}

extern "C" fn write_unit(at: u64, size: u32, data: *mut u8, _: *mut c_void) -> bool {
    // SAFETY: as above.
    let data = unsafe { std::slice::from_raw_parts(data, size as usize) };
    with(|devices| devices.unit.write(&mut Machine, offset(at), data));
    true
}

extern "C" fn read_engine(at: u64, size: u32, data: *mut u8, _: *mut c_void) -> bool {
    // SAFETY: as above.
    let data = unsafe { std::slice::from_raw_parts_mut(data, size as usize) };
    data.fill(0xff);
    with(|devices| devices.engine.read(offset(at), data));
    true
}

extern "C" fn write_engine(at: u64, size: u32, data: *mut u8, _: *mut c_void) -> bool {
    // SAFETY: as above.
    let data = unsafe { std::slice::from_raw_parts(data, size as usize) };
    with(|Devices { unit, engine, repetition, .. }| {
        let asked = engine.write(unit, &mut Machine, offset(at), data);
        if let (Asked::Repetition(period), Some(timer)) = (asked, repetition) {
            timer.set(period);
        }
    });
    true
}

/// In a page of registers.
fn offset(at: u64) -> usize {
    (at & 0xfff) as usize
}
