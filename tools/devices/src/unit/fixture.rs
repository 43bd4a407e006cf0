//! A machine with the unit and tables for one device, for tests.

use super::{Access, Unit};
use crate::bus::fake::FakeBus;
use crate::bus::{Bus, Message, SourceId};

pub(super) const DEVICE: SourceId = SourceId(0x28);
pub(super) const ROOT: u64 = 0x1_0000;
pub(super) const CONTEXTS: u64 = 0x1_1000;
/// A table of each level from the leaves' up.
pub(super) const TABLES: [u64; 4] = [0x2_0000, 0x2_1000, 0x2_2000, 0x2_3000];
pub(super) const QUEUE: u64 = 0x3_0000;
pub(super) const REMAPPING: u64 = 0x4_0000;
pub(super) const SECRET: u64 = 0x10_5000;
pub(super) const OTHER: u64 = 0x10_6000;
pub(super) const DOMAIN: u64 = 7;

pub(super) struct Machine {
    pub(super) unit: Unit,
    pub(super) bus: FakeBus,
}

impl Machine {
    pub(super) fn new() -> Self {
        Self { unit: Unit::new(), bus: FakeBus::default() }
    }

    pub(super) fn put(&mut self, offset: usize, value: u32) {
        self.unit.write(&mut self.bus, offset, &value.to_le_bytes());
    }

    pub(super) fn put64(&mut self, offset: usize, value: u64) {
        self.unit.write(&mut self.bus, offset, &value.to_le_bytes());
    }

    pub(super) fn get(&mut self, offset: usize) -> u32 {
        let mut word = [0; 4];
        self.unit.read(offset, &mut word);
        u32::from_le_bytes(word)
    }

    pub(super) fn get64(&mut self, offset: usize) -> u64 {
        let mut word = [0; 8];
        self.unit.read(offset, &mut word);
        u64::from_le_bytes(word)
    }

    /// Sets or clears one bit of the global command register, as software has to.
    pub(super) fn command(&mut self, bit: u32, is_set: bool) {
        let status = self.get(0x1c) & 0x96ff_ffff;
        self.put(0x18, if is_set { status | 1 << bit } else { status & !(1 << bit) });
    }

    pub(super) fn write_by(&mut self, device: SourceId, address: u64) -> bool {
        self.bus.put64(address, 0x5ec2);
        let _ = self.unit.access(&mut self.bus, device, address, Access::Write(&0xbadu64.to_le_bytes()));
        self.bus.read64(address) == 0xbad
    }

    pub(super) fn writes(&mut self, address: u64) -> bool {
        self.write_by(DEVICE, address)
    }

    pub(super) fn reads(&mut self, address: u64) -> bool {
        self.bus.put64(address, 0x5ec2);
        let mut word = [0; 8];
        let outcome = self.unit.access(&mut self.bus, DEVICE, address, Access::Read(&mut word));
        assert_eq!(outcome.is_err(), word == [0xff; 8]);
        word == 0x5ec2u64.to_le_bytes()
    }

    /// Takes the oldest recorded fault: its reason, address, source, and whether it was a read.
    pub(super) fn fault(&mut self) -> Option<(u8, u64, u16, bool)> {
        let status = self.get(0x34);
        if status & 2 == 0 {
            return None;
        }
        let record = 0x200 + 16 * (status >> 8 & 0xff) as usize;
        let (address, about) = (self.get64(record), self.get64(record + 8));
        self.put(record + 12, 1 << 31);
        Some(((about >> 32) as u8, address, about as u16, about >> 62 & 1 != 0))
    }

    /// Tables of so many levels by which the device has all memory below 2 MiB, but not the secret.
    pub(super) fn translate(&mut self, levels: u64) {
        self.bus.put64(ROOT, CONTEXTS | 1);
        for device in [DEVICE, SourceId(0x30)] {
            self.bus.put64(CONTEXTS + u64::from(device.0) * 16, TABLES[levels as usize - 1] | 1);
            self.bus.put64(CONTEXTS + u64::from(device.0) * 16 + 8, DOMAIN << 8 | (levels - 2));
        }
        for level in 1..levels as usize {
            self.bus.put64(TABLES[level], TABLES[level - 1] | 3);
        }
        for page in 0..512 {
            self.bus.put64(TABLES[0] + page * 8, page << 12 | 3);
        }
        self.map(SECRET, 0);
        self.put64(0x20, ROOT);
        self.command(30, true);
        self.forget_all();
        self.command(31, true);
    }

    pub(super) fn map(&mut self, page: u64, entry: u64) {
        self.bus.put64(TABLES[0] + (page >> 12) * 8, entry);
    }

    pub(super) fn forget_all(&mut self) {
        self.put64(0x28, 1 << 63 | 1 << 61);
        assert_eq!(self.get64(0x28), 1 << 61 | 1 << 59);
        self.forget_pages(1, 0, 0);
    }

    pub(super) fn forget_pages(&mut self, granularity: u64, domain: u64, address: u64) {
        self.put64(0x100, address);
        self.put64(0x108, 1 << 63 | granularity << 60 | domain << 32);
        assert_eq!(self.get64(0x108) >> 57, granularity << 3 | granularity);
    }

    pub(super) fn message(&mut self, address: u32, data: u32) -> Option<Message> {
        self.bus.messages.clear();
        let _ = self.unit.access(&mut self.bus, DEVICE, address.into(), Access::Write(&data.to_le_bytes()));
        self.bus.messages.pop()
    }
}
