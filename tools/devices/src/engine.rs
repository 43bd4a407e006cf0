//! An engine that does DMA, in the name of whichever device it is told.
//!
//! | offset | register |
//! |---|---|
//! | 00H | identity |
//! | 08H | address of memory, 64 bits |
//! | 10H | number of bytes, at most 2,048 |
//! | 14H | source: bus, device and function |
//! | 18H | command: 1 fetches into the buffer, 2 stores from it; read, whether the last access was blocked |
//! | 1CH | microseconds between stores that it repeats by itself; 0 ends them |
//! | 20H | number of those stores |
//! | 24H | how many of them were blocked |
//! | 800H | the buffer |

use crate::bus::{Bus, SourceId};
use crate::unit::{Access, Unit};

/// Size of its registers, the buffer being the upper half.
pub(crate) const SIZE: usize = 0x1000;

const IDENTITY: u32 = u32::from_le_bytes(*b"XDMA");
const ADDRESS: usize = 0x08;
const LENGTH: usize = 0x10;
const SOURCE: usize = 0x14;
const COMMAND: usize = 0x18;
const PERIOD: usize = 0x1c;
const STORES: usize = 0x20;
const BLOCKED_STORES: usize = 0x24;
const BUFFER: usize = 0x800;

/// The engine.
pub(crate) struct Engine([u8; SIZE]);

/// What a CPU's write asks of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Nothing,
    /// To call [`Engine::repeat`] so often, in microseconds; at 0 never.
    Repetition(u32),
}

impl Engine {
    pub(crate) fn new() -> Self {
        let mut engine = Self([0; SIZE]);
        engine.put(0, IDENTITY);
        engine
    }

    /// A CPU reads.
    pub(crate) fn read(&self, offset: usize, data: &mut [u8]) {
        data.iter_mut().zip(self.0.iter().skip(offset)).for_each(|(to, from)| *to = *from);
    }

    /// A CPU writes.
    pub(crate) fn write(&mut self, unit: &mut Unit, bus: &mut impl Bus, offset: usize, data: &[u8]) -> Asked {
        if offset == 0 {
            return Asked::Nothing;
        }
        self.0.iter_mut().skip(offset).zip(data).for_each(|(to, from)| *to = *from);
        match offset {
            COMMAND => {
                let is_store = self.get(COMMAND) & 2 != 0;
                let is_blocked = self.transfer(unit, bus, is_store);
                self.put(COMMAND, u32::from(is_blocked));
                Asked::Nothing
            }
            PERIOD => Asked::Repetition(self.get(PERIOD)),
            _ => Asked::Nothing,
        }
    }

    /// Stores once more.
    pub(crate) fn repeat(&mut self, unit: &mut Unit, bus: &mut impl Bus) {
        let is_blocked = self.transfer(unit, bus, true);
        self.put(STORES, self.get(STORES).wrapping_add(1));
        self.put(BLOCKED_STORES, self.get(BLOCKED_STORES).wrapping_add(u32::from(is_blocked)));
    }

    /// Does the access; returns whether any of it was blocked.
    fn transfer(&mut self, unit: &mut Unit, bus: &mut impl Bus, is_store: bool) -> bool {
        let address = u64::from(self.get(ADDRESS)) | u64::from(self.get(ADDRESS + 4)) << 32;
        let [low, high, ..] = self.get(SOURCE).to_le_bytes();
        let source = SourceId(u16::from_le_bytes([low, high]));
        let length = usize::try_from(self.get(LENGTH)).unwrap_or(SIZE).min(SIZE - BUFFER);
        let buffer = &mut self.0[BUFFER..BUFFER + length];
        let access = if is_store { Access::Write(buffer) } else { Access::Read(buffer) };
        unit.access(bus, source, address, access).is_err()
    }

    fn get(&self, offset: usize) -> u32 {
        let mut word = [0; 4];
        self.read(offset, &mut word);
        u32::from_le_bytes(word)
    }

    fn put(&mut self, offset: usize, value: u32) {
        self.0[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::fake::FakeBus;

    struct Machine {
        engine: Engine,
        unit: Unit,
        bus: FakeBus,
    }

    impl Machine {
        fn new() -> Self {
            let mut machine = Self { engine: Engine::new(), unit: Unit::new(), bus: FakeBus::default() };
            machine.put(ADDRESS, 0x1000);
            machine.put(LENGTH, 4);
            machine
        }

        fn put(&mut self, offset: usize, value: u32) -> Asked {
            self.engine.write(&mut self.unit, &mut self.bus, offset, &value.to_le_bytes())
        }

        /// Switches the unit on, without tables.
        fn block(&mut self) {
            self.unit.write(&mut self.bus, 0x18, &(1u32 << 31).to_le_bytes());
        }
    }

    #[test]
    fn commands_move_the_buffer_and_say_what_was_blocked() {
        let mut machine = Machine::new();
        assert_eq!(machine.put(BUFFER, 0x1234_5678), Asked::Nothing);
        machine.put(COMMAND, 2);
        assert_eq!((machine.bus.read64(0x1000), machine.engine.get(COMMAND)), (0x1234_5678, 0));
        machine.put(BUFFER, 0);
        machine.put(COMMAND, 1);
        assert_eq!((machine.engine.get(BUFFER), machine.engine.get(COMMAND)), (0x1234_5678, 0));
        machine.block();
        machine.put(COMMAND, 1);
        assert_eq!((machine.engine.get(BUFFER), machine.engine.get(COMMAND)), (u32::MAX, 1));
    }

    #[test]
    fn repeated_stores_are_counted() {
        let mut machine = Machine::new();
        machine.put(BUFFER, 7);
        assert_eq!(machine.put(PERIOD, 10), Asked::Repetition(10));
        machine.engine.repeat(&mut machine.unit, &mut machine.bus);
        assert_eq!(machine.bus.read64(0x1000), 7);
        machine.block();
        machine.engine.repeat(&mut machine.unit, &mut machine.bus);
        assert_eq!((machine.engine.get(STORES), machine.engine.get(BLOCKED_STORES)), (2, 1));
    }

    #[test]
    fn a_length_or_place_beyond_the_buffer_is_cut() {
        let mut machine = Machine::new();
        machine.put(LENGTH, u32::MAX);
        machine.put(SIZE - 4, 9);
        machine.put(COMMAND, 2);
        assert_eq!((machine.bus.read64(0x17fc), machine.bus.read64(0x1800)), (9, 0));
        let mut bytes = [1; 8];
        machine.engine.read(SIZE - 4, &mut bytes);
        assert_eq!(bytes, [9, 0, 0, 0, 1, 1, 1, 1]);
        machine.put(0, 0);
        assert_eq!(machine.engine.get(0), IDENTITY);
    }
}
