//! The hypervisor's driver of remapping units (`lib/vtd`), in a guest's hands: a unit keeps every device from a page
//! that its tables close, lets them in again, and tells who was refused; protected memory does before there are tables.
//! devices: yes
//! cmdline: dmap=off
#![no_std]
#![no_main]

use guest::memory::{FREE, read8, read32, read64, write8, write32, write64};
use guest::{check, check_eq, dma, guest};
use hw::PhysMemory;
use vtd::device_tables::{DeviceAccess, DeviceTables};
use vtd::fault::{Access, Fault};
use vtd::frames::{FrameState, Frames};
use vtd::shape::Shape;
use vtd::unit::{ProtectedRange, Unit, UnitError};
use vtd::{DomainId, Registers, SourceId, TableMemory};
use x86::address::{GIB, HostPhysAddr, MIB};

guest!(main);

/// At a boundary of protected memory.
const PAGE: u64 = FREE;
const QUEUE: HostPhysAddr = HostPhysAddr::new(FREE + 0x1000);
const STATUS: HostPhysAddr = HostPhysAddr::new(FREE + 0x2000);
const TABLES: HostPhysAddr = HostPhysAddr::new(FREE + 0x3000);
const DEVICE: u16 = 0x28;
const OTHER: u16 = 0xff08;
const WRITE_NOT_ALLOWED: u8 = 5;

/// Registers from this address on.
struct Window(u64);

impl Registers for Window {
    fn read_u32(&self, offset: u16) -> u32 {
        read32(self.0 + u64::from(offset)).unwrap_or(u32::MAX)
    }
    fn write_u32(&self, offset: u16, value: u32) {
        check_eq!(write32(self.0 + u64::from(offset), value), Ok(()), "the register at {offset:#x}");
    }
    fn read_u64(&self, offset: u16) -> u64 {
        read64(self.0 + u64::from(offset)).unwrap_or(u64::MAX)
    }
    fn write_u64(&self, offset: u16, value: u64) {
        check_eq!(write64(self.0 + u64::from(offset), value), Ok(()), "the register at {offset:#x}");
    }
}

/// The guest's memory, whose physical addresses are its own.
struct Memory;

impl PhysMemory for Memory {
    fn read(&self, address: HostPhysAddr, bytes: &mut [u8]) {
        for (at, byte) in (address.get()..).zip(bytes) {
            *byte = read8(at).unwrap_or(0);
        }
    }
    fn write(&self, address: HostPhysAddr, bytes: &[u8]) {
        for (at, byte) in (address.get()..).zip(bytes) {
            check_eq!(write8(at, *byte), Ok(()), "memory");
        }
    }
    fn read_u64(&self, address: HostPhysAddr) -> u64 {
        read64(address.get()).unwrap_or(0)
    }
    fn write_u64(&self, address: HostPhysAddr, value: u64) {
        check_eq!(write64(address.get(), value), Ok(()), "a table");
    }
}

impl TableMemory for Memory {
    /// The unit looks into caches.
    fn write_back(&self, _: HostPhysAddr, _: u64) {}
}

fn main() {
    let Some(base) = dma::unit() else {
        check!(false, "the firmware tells of a unit");
        return;
    };
    let result = Unit::new(Window(base), Memory).and_then(drive);
    check_eq!(result, Ok(()), "the unit");
}

fn drive(mut unit: Unit<Window, Memory>) -> Result<(), UnitError> {
    unit.take_over()?;
    check_eq!(stores(), [true; 2], "stores before anything is closed");
    unit.protect_low_memory(ProtectedRange { start: PAGE, end: PAGE + 2 * MIB })?;
    check_eq!(stores(), [false; 2], "stores to protected memory");
    unit.release_protected_memory()?;
    check_eq!(stores(), [true; 2], "stores once it is released");

    unit.enable_queue(QUEUE, STATUS)?;
    let shape = Shape::common([(unit.capability(), unit.extended_capability())].into_iter(), 4 * GIB);
    check!(shape.is_ok(), "tables for this unit");
    let Ok(shape) = shape else { return Ok(()) };
    let mut states = [FrameState::Free; 16];
    let tables = DeviceTables::new(Memory, Frames::new(TABLES, &mut states), shape, DomainId(1), 4 * GIB);
    check!(tables.is_ok(), "the tables");
    let Ok(mut tables) = tables else { return Ok(()) };
    unit.set_root_table(tables.root_table())?;
    unit.enable_translation()?;
    check_eq!(stores(), [true; 2], "stores through the tables");

    let mut units = [unit];
    let closed = tables.set(PAGE, PAGE + 0x1000, DeviceAccess::Closed);
    check!(closed.is_ok(), "a page is closed");
    let Ok(stale) = closed else { return Ok(()) };
    check_eq!(stores(), [true; 2], "stores before the unit follows");
    tables.follow(&mut units, stale)?;
    check_eq!(stores(), [false; 2], "stores to a closed page");
    check_eq!(dma::store(DEVICE, PAGE + 0x1000, 0), Ok(true), "a store beside it");
    tells_who(&units[0])?;
    let opened = tables.set(PAGE, PAGE + 0x1000, DeviceAccess::Open);
    check!(opened.is_ok(), "the page is opened");
    let Ok(stale) = opened else { return Ok(()) };
    tables.follow(&mut units, stale)?;
    check_eq!(stores(), [true; 2], "stores to a page that is open again");
    let [mut unit] = units;
    unit.disable_translation()
}

/// Whether stores of two devices arrive.
fn stores() -> [bool; 2] {
    [DEVICE, OTHER].map(|device| {
        check_eq!(write64(PAGE, 0), Ok(()), "memory");
        let is_let = dma::store(device, PAGE, 0xbad) == Ok(true);
        check_eq!(read64(PAGE), Ok(if is_let { 0xbad } else { 0 }), "what a store leaves");
        is_let
    })
}

fn tells_who(unit: &Unit<Window, Memory>) -> Result<(), UnitError> {
    let mut told = [None; 2];
    let mut count = 0;
    let drained = unit.drain_faults(|fault| {
        if let Some(place) = told.get_mut(count) {
            *place = Some(fault);
        }
        count += 1;
    })?;
    check_eq!((drained.told, drained.is_more), (2, false), "records");
    let refused = |device| {
        Some(Fault {
            source: SourceId(device),
            access: Access::Write,
            address: PAGE,
            reason: WRITE_NOT_ALLOWED,
        })
    };
    check_eq!(told, [DEVICE, OTHER].map(refused), "who was refused, and why");
    Ok(())
}
