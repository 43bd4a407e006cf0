//! A driven unit against the one that the emulator is given (`tools/devices`), which was written apart from this crate:
//! what both it and the made-up unit of this crate's own tests take to be the specification is not one reader's slip.
#![expect(
    dead_code,
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test, which uses a part of what it includes"
)]

#[path = "../../../tools/devices/src/bus.rs"]
mod bus;
#[path = "../../../tools/devices/src/unit/mod.rs"]
mod unit;

use std::cell::RefCell;

use bus::fake::FakeBus;
use bus::{Bus, Message, SourceId};
use hw::PhysMemory;
use vtd::command::{Contexts, Translations};
use vtd::device_tables::{DeviceAccess, DeviceTables};
use vtd::fault::{Access, Fault};
use vtd::frames::{FrameState, Frames};
use vtd::shape::Shape;
use vtd::unit::{Drained, ProtectedRange, Unit};
use vtd::{DomainId, Registers, TableMemory};
use x86::address::{GIB, HostPhysAddr, MIB};

const FRAMES: HostPhysAddr = HostPhysAddr::new(0x100_0000);
const QUEUE: HostPhysAddr = HostPhysAddr::new(0x8000);
const STATUS: HostPhysAddr = HostPhysAddr::new(0x9000);
const DOMAIN: DomainId = DomainId(3);
const DEVICE: u16 = 0x1234;
const PAGE: u64 = 0x12_3000;

/// Memory, and the unit on its way to it.
struct Machine(RefCell<(FakeBus, unit::Unit)>);

impl Machine {
    fn new() -> Self {
        Self(RefCell::new((FakeBus::default(), unit::Unit::new())))
    }

    /// Whether a store of the device's arrives.
    fn stores(&self, source: u16, address: u64) -> bool {
        let (bus, unit) = &mut *self.0.borrow_mut();
        bus.put64(address, 0);
        let written = unit.access(bus, SourceId(source), address, unit::Access::Write(&[0xa5; 8]));
        assert_eq!(written.is_ok(), bus.read64(address) == 0xa5a5_a5a5_a5a5_a5a5);
        written.is_ok()
    }

    fn read_registers(&self, offset: u16, bytes: &mut [u8]) {
        self.0.borrow_mut().1.read(offset.into(), bytes);
    }

    fn write_registers(&self, offset: u16, bytes: &[u8]) {
        let (bus, unit) = &mut *self.0.borrow_mut();
        unit.write(bus, offset.into(), bytes);
    }
}

impl Registers for &Machine {
    fn read_u32(&self, offset: u16) -> u32 {
        let mut bytes = [0; 4];
        self.read_registers(offset, &mut bytes);
        u32::from_le_bytes(bytes)
    }
    fn write_u32(&self, offset: u16, value: u32) {
        self.write_registers(offset, &value.to_le_bytes());
    }
    fn read_u64(&self, offset: u16) -> u64 {
        let mut bytes = [0; 8];
        self.read_registers(offset, &mut bytes);
        u64::from_le_bytes(bytes)
    }
    fn write_u64(&self, offset: u16, value: u64) {
        self.write_registers(offset, &value.to_le_bytes());
    }
}

impl PhysMemory for &Machine {
    fn read(&self, address: HostPhysAddr, bytes: &mut [u8]) {
        self.0.borrow_mut().0.read(address.get(), bytes);
    }
    fn write(&self, address: HostPhysAddr, bytes: &[u8]) {
        self.0.borrow_mut().0.write(address.get(), bytes);
    }
    fn read_u64(&self, address: HostPhysAddr) -> u64 {
        self.0.borrow_mut().0.read64(address.get())
    }
    fn write_u64(&self, address: HostPhysAddr, value: u64) {
        self.0.borrow_mut().0.put64(address.get(), value);
    }
}

impl TableMemory for &Machine {
    /// The unit looks into caches.
    fn write_back(&self, _: HostPhysAddr, _: u64) {}
}

/// A unit that is about to be driven, by its queue or by registers.
fn driven(machine: &Machine, has_queue: bool) -> Unit<&Machine, &Machine> {
    let mut unit = Unit::new(machine, machine).unwrap().with_patience(4);
    unit.take_over().unwrap();
    if has_queue {
        unit.enable_queue(QUEUE, STATUS).unwrap();
    }
    unit
}

fn tables<'a>(
    machine: &'a Machine,
    unit: &Unit<&Machine, &Machine>,
    states: &'a mut [FrameState],
    end: u64,
) -> DeviceTables<'a, &'a Machine> {
    let shape = Shape::common([(unit.capability(), unit.extended_capability())].into_iter(), end).unwrap();
    DeviceTables::new(machine, Frames::new(FRAMES, states), shape, DOMAIN, end).unwrap()
}

#[test]
fn ranges_close_and_open_for_every_device() {
    // Up to 512 GiB it walks 3 levels, beyond 4.
    for (has_queue, end) in [(false, 4 * GIB), (true, 4 * GIB), (false, 513 * GIB), (true, 513 * GIB)] {
        let machine = Machine::new();
        let mut units = [driven(&machine, has_queue)];
        let mut states = [FrameState::Free; 32];
        let mut tables = tables(&machine, &units[0], &mut states, end);
        units[0].set_root_table(tables.root_table()).unwrap();
        units[0].enable_translation().unwrap();
        for (start, stop) in [(PAGE, PAGE + 0x1000), (2 * MIB, 4 * MIB), (GIB - 0x1000, 2 * GIB + 0x1000)] {
            let borders = [start - 8, start, stop - 8, stop];
            // Through what is kept, and of every bus alike.
            assert!(borders.iter().all(|at| machine.stores(DEVICE, *at) && machine.stores(0xffff, *at)));
            let stale = tables.set(start, stop, DeviceAccess::Closed).unwrap();
            assert!(machine.stores(DEVICE, start), "it keeps what it had");
            tables.follow(&mut units, stale).unwrap();
            for source in [DEVICE, 0, 0xffff] {
                assert_eq!(
                    borders.map(|at| machine.stores(source, at)),
                    [true, false, false, true],
                    "{start:#x}"
                );
            }
            let stale = tables.set(start, stop, DeviceAccess::Open).unwrap();
            tables.follow(&mut units, stale).unwrap();
            assert!(borders.iter().all(|at| machine.stores(DEVICE, *at)), "{start:#x}");
        }
        assert!(!machine.stores(DEVICE, end), "behind all memory");
    }
}

#[test]
fn who_was_refused_is_told() {
    let machine = Machine::new();
    let mut unit = driven(&machine, true);
    let mut states = [FrameState::Free; 8];
    let mut tables = tables(&machine, &unit, &mut states, GIB);
    unit.set_root_table(tables.root_table()).unwrap();
    unit.enable_translation().unwrap();
    let mut units = [unit];
    let stale = tables.set(PAGE, PAGE + 0x1000, DeviceAccess::Closed).unwrap();
    tables.follow(&mut units, stale).unwrap();
    let drain = || {
        let mut told = Vec::new();
        let drained = units[0].drain_faults(|fault| told.push(fault)).unwrap();
        (told, drained)
    };
    for source in 0..6 {
        assert!(!machine.stores(DEVICE + source, PAGE));
    }
    // It has four records.
    let fault = |source| Fault {
        source: vtd::SourceId(DEVICE + source),
        access: Access::Write,
        address: PAGE,
        reason: 5,
    };
    let all = [0, 1, 2, 3].map(fault).to_vec();
    assert_eq!(drain(), (all, Drained { told: 4, is_more: true }));
    assert!(!machine.stores(DEVICE, PAGE));
    assert_eq!(drain(), (vec![fault(0)], Drained { told: 1, is_more: false }));
}

#[test]
fn contexts_and_root_tables_are_followed() {
    for has_queue in [false, true] {
        let machine = Machine::new();
        let mut unit = driven(&machine, has_queue);
        let mut states = [FrameState::Free; 8];
        let tables = tables(&machine, &unit, &mut states, GIB);
        unit.set_root_table(tables.root_table()).unwrap();
        unit.enable_translation().unwrap();
        assert!(machine.stores(DEVICE, PAGE));
        let root = tables.root_table().get() + 16 * u64::from(DEVICE >> 8);
        let contexts = PhysMemory::read_u64(&&machine, HostPhysAddr::new(root)) & !0xfff;
        let context = HostPhysAddr::new(contexts + 16 * u64::from(DEVICE & 0xff));
        PhysMemory::write_u64(&&machine, context, 0);
        assert!(machine.stores(DEVICE, PAGE), "it keeps what it had");
        unit.follow_contexts(Contexts::Device(DOMAIN, vtd::SourceId(DEVICE))).unwrap();
        assert!(!machine.stores(DEVICE, PAGE) && machine.stores(DEVICE + 1, PAGE));
        // Memory of zeros is an empty root table.
        unit.set_root_table(HostPhysAddr::new(0x70_0000)).unwrap();
        assert!(!machine.stores(DEVICE + 1, PAGE));
        unit.disable_translation().unwrap();
        assert!(machine.stores(DEVICE, PAGE));
        unit.follow_tables(Translations::All).unwrap();
    }
}

#[test]
fn protected_memory_is_closed_before_anything_translates() {
    let machine = Machine::new();
    let mut unit = driven(&machine, false);
    unit.protect_low_memory(ProtectedRange { start: 4 * MIB, end: 8 * MIB }).unwrap();
    let borders = [4 * MIB - 8, 4 * MIB, 8 * MIB - 8, 8 * MIB, 5 * GIB];
    assert_eq!(borders.map(|at| machine.stores(DEVICE, at)), [true, false, false, true, true]);
    unit.release_protected_memory().unwrap();
    assert!(borders.iter().all(|at| machine.stores(DEVICE, *at)));
}

#[test]
fn interrupts_of_devices_are_blocked_where_no_entry_lets_them() {
    let machine = Machine::new();
    let mut unit = driven(&machine, true);
    let sends = |address: u64, data: u32| {
        let (bus, unit) = &mut *machine.0.borrow_mut();
        bus.messages.clear();
        let _ = unit.access(bus, SourceId(DEVICE), address, unit::Access::Write(&data.to_le_bytes()));
        bus.messages.pop()
    };
    // An NMI for every CPU.
    let nmi = Message { address: 0xfeef_f000, data: 0x400 };
    assert_eq!(sends(nmi.address.into(), nmi.data), Some(nmi));
    unit.remap_interrupts(HostPhysAddr::new(0x60_0000), 8, false).unwrap();
    assert_eq!(sends(nmi.address.into(), nmi.data), None, "in the old format");
    assert_eq!(sends(0xfee0_0010, 0), None, "by an entry that is not present");
    let mut reasons = Vec::new();
    unit.drain_faults(|fault| reasons.push(fault.reason)).unwrap();
    assert_eq!(reasons, [0x25, 0x22]);
}
