//! The hypervisor's own driver and tables, `lib/vtd`, over this unit: two readings of one specification agree.

use super::{Access, Unit};
use crate::bus::fake::FakeBus;
use crate::bus::{Bus, SourceId};
use hw::PhysMemory;
use std::cell::RefCell;
use vtd::DomainId;
use vtd::command::Translations;
use vtd::device_tables::{DeviceAccess, DeviceTables};
use vtd::frames::{FrameState, Frames};
use vtd::shape::Shape;
use vtd::unit::{ProtectedRange, Unit as Driven};
use x86::address::HostPhysAddr;

const DEVICE: SourceId = SourceId(0x0128);
const TABLES: HostPhysAddr = HostPhysAddr::new(0x100_0000);
const QUEUE: HostPhysAddr = HostPhysAddr::new(0x200_0000);
const STATUS: HostPhysAddr = HostPhysAddr::new(0x200_1000);
/// 64 GiB, and a little that takes small pages.
const MEMORY_END: u64 = (64 << 30) + 0x5000;
const PAGE: u64 = 0x1234_5000;

/// A machine that the driver and a device see at once.
struct Machine(RefCell<(Unit, FakeBus)>);

impl Machine {
    fn new() -> Self {
        Self(RefCell::new((Unit::new(), FakeBus::default())))
    }

    fn read_register<const N: usize>(&self, offset: u16) -> [u8; N] {
        let mut word = [0; N];
        self.0.borrow_mut().0.read(offset.into(), &mut word);
        word
    }

    fn write_register(&self, offset: u16, word: &[u8]) {
        let (unit, bus) = &mut *self.0.borrow_mut();
        unit.write(bus, offset.into(), word);
    }

    /// Whether a device's store arrives.
    fn stores(&self, address: u64) -> bool {
        let (unit, bus) = &mut *self.0.borrow_mut();
        let outcome = unit.access(bus, DEVICE, address, Access::Write(&[7; 8]));
        let has_arrived = bus.read64(address) == u64::from_le_bytes([7; 8]);
        assert_eq!(has_arrived, outcome.is_ok());
        bus.put64(address, 0);
        has_arrived
    }
}

impl vtd::Registers for &Machine {
    fn read_u32(&self, offset: u16) -> u32 {
        u32::from_le_bytes(self.read_register(offset))
    }
    fn write_u32(&self, offset: u16, value: u32) {
        self.write_register(offset, &value.to_le_bytes());
    }
    fn read_u64(&self, offset: u16) -> u64 {
        u64::from_le_bytes(self.read_register(offset))
    }
    fn write_u64(&self, offset: u16, value: u64) {
        self.write_register(offset, &value.to_le_bytes());
    }
}

impl PhysMemory for &Machine {
    fn read(&self, address: HostPhysAddr, bytes: &mut [u8]) {
        self.0.borrow_mut().1.read(address.get(), bytes);
    }
    fn write(&self, address: HostPhysAddr, bytes: &[u8]) {
        self.0.borrow_mut().1.write(address.get(), bytes);
    }
    fn read_u64(&self, address: HostPhysAddr) -> u64 {
        self.0.borrow_mut().1.read64(address.get())
    }
    fn write_u64(&self, address: HostPhysAddr, value: u64) {
        self.0.borrow_mut().1.put64(address.get(), value);
    }
}

impl vtd::TableMemory for &Machine {
    // Walks of this unit look into caches.
    fn write_back(&self, _: HostPhysAddr, _: u64) {}
}

type Driver<'a> = Driven<&'a Machine, &'a Machine>;

fn driver(machine: &Machine) -> Driver<'_> {
    let mut driver = Driven::new(machine, machine).unwrap().with_patience(4);
    driver.take_over().unwrap();
    driver
}

#[test]
fn pages_are_closed_and_opened_again_by_registers_and_by_the_queue() {
    for has_queue in [false, true] {
        let machine = Machine::new();
        let mut driver = driver(&machine);
        if has_queue {
            driver.enable_queue(QUEUE, STATUS).unwrap();
        }
        let words = [(driver.capability(), driver.extended_capability())];
        let shape = Shape::common(words.into_iter(), MEMORY_END).unwrap();
        let mut states = [FrameState::Free; 32];
        let frames = Frames::new(TABLES, &mut states);
        let mut tables = DeviceTables::new(&machine, frames, shape, DomainId(5), MEMORY_END).unwrap();
        driver.set_root_table(tables.root_table()).unwrap();
        driver.enable_translation().unwrap();
        let places = [0x1000, PAGE, PAGE + 0x1000, MEMORY_END - 8];
        assert!(places.iter().all(|place| machine.stores(*place)), "all of memory");
        assert!(!machine.stores(MEMORY_END), "and no more");
        for _ in 0..3 {
            let stale = tables.set(PAGE, PAGE + 0x1000, DeviceAccess::Closed).unwrap();
            tables.follow(std::slice::from_mut(&mut driver), stale).unwrap();
            assert!(!machine.stores(PAGE) && machine.stores(PAGE - 8) && machine.stores(PAGE + 0x1000));
            let stale = tables.set(PAGE, PAGE + 0x1000, DeviceAccess::Open).unwrap();
            tables.follow(std::slice::from_mut(&mut driver), stale).unwrap();
            assert!(places.iter().all(|place| machine.stores(*place)));
        }
        let mut faults = Vec::new();
        driver.drain_faults(|fault| faults.push((fault.source.0, fault.address, fault.reason))).unwrap();
        // More fit no record: the one behind memory's end, and each of the three.
        let closed = (DEVICE.0, PAGE, 5);
        assert_eq!(faults, [(DEVICE.0, MEMORY_END, 5), closed, closed, closed]);
    }
}

#[test]
fn what_is_not_followed_is_still_gone_by() {
    let machine = Machine::new();
    let mut driver = driver(&machine);
    let words = [(driver.capability(), driver.extended_capability())];
    let shape = Shape::common(words.into_iter(), MEMORY_END).unwrap();
    let mut states = [FrameState::Free; 32];
    let frames = Frames::new(TABLES, &mut states);
    let mut tables = DeviceTables::new(&machine, frames, shape, DomainId(5), MEMORY_END).unwrap();
    driver.set_root_table(tables.root_table()).unwrap();
    driver.enable_translation().unwrap();
    assert!(machine.stores(PAGE));
    let stale = tables.set(PAGE, PAGE + 0x1000, DeviceAccess::Closed).unwrap();
    assert!(machine.stores(PAGE), "the unit keeps its translation");
    driver.follow_tables(Translations::Domain(DomainId(6))).unwrap();
    assert!(machine.stores(PAGE), "another domain's is none of it");
    tables.follow(std::slice::from_mut(&mut driver), stale).unwrap();
    assert!(!machine.stores(PAGE));
}

#[test]
fn protected_memory_and_interrupts_are_as_the_driver_says() {
    let machine = Machine::new();
    let mut driver = driver(&machine);
    driver.protect_low_memory(ProtectedRange { start: 0x1220_0000, end: 0x1260_0000 }).unwrap();
    assert!(!machine.stores(PAGE) && machine.stores(0x121f_fff8) && machine.stores(0x1260_0000));
    driver.release_protected_memory().unwrap();
    assert!(machine.stores(PAGE));
    driver.enable_queue(QUEUE, STATUS).unwrap();
    driver.remap_interrupts(TABLES, 4, false).unwrap();
    let (unit, bus) = &mut *machine.0.borrow_mut();
    let init = unit.access(bus, DEVICE, 0xfee0_1000, Access::Write(&0x4500_u32.to_le_bytes()));
    assert!(init.is_err() && bus.messages.is_empty());
}
