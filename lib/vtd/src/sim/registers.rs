//! Registers of the made-up unit.

use super::{FAULT_OFFSET, IOTLB_OFFSET, RECORDS, Sim, State};
use crate::Registers;

const TRANSLATION: u32 = 1 << 31;
const ROOT: u32 = 1 << 30;
const FAULT_LOG: u32 = 1 << 28;
const FLUSH: u32 = 1 << 27;
const QUEUE: u32 = 1 << 26;
const REMAPPING: u32 = 1 << 25;
const INTERRUPT_TABLE: u32 = 1 << 24;
const OLD_INTERRUPTS: u32 = 1 << 23;
/// Commands that stay.
const LASTING: u32 = TRANSLATION | FAULT_LOG | QUEUE | REMAPPING | OLD_INTERRUPTS;

const STATUS: usize = 0x1c;
const CONTEXT_COMMAND: usize = 0x28;
const FAULT_STATUS: usize = 0x34;
const IOTLB_COMMAND: usize = IOTLB_OFFSET + 8;
/// Bits of protected regions' addresses that there are not: 2 MiB.
const NO_BITS: u32 = 0x1f_ffff;

impl Registers for &Sim {
    fn read_u32(&self, offset: u16) -> u32 {
        let at = usize::from(offset);
        assert!(at.is_multiple_of(4), "{at:#x}");
        match at {
            STATUS => self.read_status(),
            FAULT_STATUS => self.read_fault_status(),
            0x08 => self.model.capability() as u32,
            _ => self.state.borrow().get32(at),
        }
    }

    fn write_u32(&self, offset: u16, value: u32) {
        let at = usize::from(offset);
        match at {
            0x18 => self.command(value),
            FAULT_STATUS => {
                let mut state = self.state.borrow_mut();
                let cleared = state.get32(at) & !(value & 0x71);
                state.put32(at, cleared);
            }
            0x38 => self.state.borrow_mut().put32(at, value & 1 << 31),
            0x64 => self.state.borrow_mut().put32(at, value & 1 << 31 | value >> 31),
            0x68 | 0x6c => self.state.borrow_mut().put32(at, value & !NO_BITS),
            _ => panic!("{at:#x} takes no 32 bits"),
        }
    }

    fn read_u64(&self, offset: u16) -> u64 {
        let at = usize::from(offset);
        assert!(at.is_multiple_of(8), "{at:#x}");
        match at {
            0x08 => self.model.capability(),
            0x10 => self.model.extended(),
            0x80 => self.state.borrow().queue_head,
            CONTEXT_COMMAND | IOTLB_COMMAND => self.poll(at),
            _ => self.state.borrow().get64(at),
        }
    }

    fn write_u64(&self, offset: u16, value: u64) {
        let at = usize::from(offset);
        assert!(at.is_multiple_of(8), "{at:#x}");
        match at {
            CONTEXT_COMMAND | IOTLB_COMMAND => {
                let mut state = self.state.borrow_mut();
                assert_eq!(state.get64(at) >> 63, 0, "a command at {at:#x} before the last is done");
                assert_eq!(state.get32(STATUS) & QUEUE, 0, "the register at {at:#x} beside the queue");
                state.put64(at, value);
                state.busy.insert(at, self.model.delay);
            }
            0x20 | 0x90 | 0xb8 | IOTLB_OFFSET => self.state.borrow_mut().put64(at, value),
            0x70 | 0x78 => self.state.borrow_mut().put64(at, value & !u64::from(NO_BITS)),
            0x88 => {
                self.state.borrow_mut().put64(at, value);
                self.work_off_queue();
            }
            _ => {
                let record = at.checked_sub(FAULT_OFFSET).filter(|record| record / 16 < RECORDS);
                assert!(record.is_some_and(|record| record % 16 == 8), "{at:#x} takes no 64 bits");
                let mut state = self.state.borrow_mut();
                let freed = state.get64(at) & !(value & 1 << 63);
                state.put64(at, freed);
            }
        }
    }
}

impl Sim {
    fn command(&self, value: u32) {
        let mut state = self.state.borrow_mut();
        assert!(state.pending.is_none(), "a command before the last is done");
        let status = state.get32(STATUS);
        let changed = (status ^ value) & LASTING;
        let once = value & (ROOT | FLUSH | INTERRUPT_TABLE);
        assert!(
            changed.count_ones() + once.count_ones() <= 1,
            "{value:#x} at {status:#x}: one thing at a time"
        );
        let mut done = status & !LASTING | value & LASTING | once;
        match once {
            // Set while it takes, and then clear.
            FLUSH => {
                done &= !FLUSH;
                state.put32(STATUS, status | FLUSH);
            }
            ROOT | INTERRUPT_TABLE => state.put32(STATUS, status & !once),
            _ => {}
        }
        state.pending = Some((done, self.model.delay));
    }

    fn read_status(&self) -> u32 {
        let mut state = self.state.borrow_mut();
        match state.pending {
            Some((_, u32::MAX)) | None => {}
            Some((status, 0)) => {
                let before = state.get32(STATUS);
                state.pending = None;
                state.put32(STATUS, status);
                self.take_effect(&mut state, before, status);
            }
            Some((status, left)) => state.pending = Some((status, left - 1)),
        }
        state.get32(STATUS)
    }

    fn take_effect(&self, state: &mut State, before: u32, after: u32) {
        if before & FLUSH != 0 {
            self.memory.flush_write_buffer();
        }
        if after & !before & ROOT != 0 {
            state.root = state.get64(0x20);
            assert_eq!(state.root >> 10 & 3, 0, "legacy mode alone");
            if self.model.sets_root_alone {
                state.drop_contexts(1, 0, 0);
                state.drop_pages(1, 0, 0);
            }
        }
        if after & !before & QUEUE != 0 {
            state.queue_head = 0;
        }
    }

    /// Faults pending, and the first of them, are as the records are.
    fn read_fault_status(&self) -> u32 {
        let mut state = self.state.borrow_mut();
        let taken = |state: &State, index: usize| state.get64(FAULT_OFFSET + 16 * index + 8) >> 63 == 1;
        let oldest = (0..RECORDS).map(|back| (state.next_record + back) % RECORDS);
        let first = oldest.into_iter().find(|&index| taken(&state, index));
        let kept = state.get32(FAULT_STATUS) & !0xff02;
        state.put32(FAULT_STATUS, kept | first.map_or(0, |index| 2 | (index as u32) << 8));
        state.get32(FAULT_STATUS)
    }

    fn poll(&self, at: usize) -> u64 {
        let mut state = self.state.borrow_mut();
        match state.busy.get(&at).copied() {
            Some(u32::MAX) | None => {}
            Some(0) => {
                state.busy.remove(&at);
                let value = state.get64(at);
                if at == CONTEXT_COMMAND {
                    state.drop_contexts(value >> 61 & 3, value as u16, (value >> 16) as u16);
                    state.put64(at, value & !(1 << 63) & !(3 << 59) | (value >> 61 & 3) << 59);
                } else {
                    let address = state.get64(IOTLB_OFFSET);
                    state.drop_pages(value >> 60 & 3, (value >> 32) as u16, address);
                    state.put64(at, value & !(1 << 63) & !(3 << 57) | (value >> 60 & 3) << 57);
                }
            }
            Some(left) => drop(state.busy.insert(at, left - 1)),
        }
        state.get64(at)
    }

    fn work_off_queue(&self) {
        let mut state = self.state.borrow_mut();
        if state.get32(STATUS) & QUEUE == 0 || self.model.delay == u32::MAX {
            return;
        }
        let (base, tail) = (state.get64(0x90), state.get64(0x88));
        assert_eq!(base & 0xfff, 0, "one page of short descriptors");
        assert!(tail < 0x1000, "the queue's end is its start");
        while state.queue_head != tail {
            let at = base + state.queue_head;
            let [low, high] = [at, at + 8].map(|half| self.memory.fetched(half));
            match low & 0xf {
                1 => state.drop_contexts(low >> 4 & 3, (low >> 16) as u16, (low >> 32) as u16),
                2 => state.drop_pages(low >> 4 & 3, (low >> 16) as u16, high),
                4 => state.invalidations[2] += 1,
                5 if low & 0x20 != 0 => self.memory.put(high, low >> 32),
                _ => {
                    let stopped = state.get32(FAULT_STATUS) | 0x10;
                    return state.put32(FAULT_STATUS, stopped);
                }
            }
            state.queue_head = (state.queue_head + 16) % 0x1000;
        }
    }
}

impl State {
    fn drop_contexts(&mut self, granularity: u64, domain: u16, source: u16) {
        self.invalidations[0] += 1;
        match granularity {
            1 => {
                self.contexts.clear();
                self.absent_contexts.clear();
            }
            2 => {
                self.contexts.retain(|_, entry| (entry[1] >> 8) as u16 != domain);
                if domain == 0 {
                    self.absent_contexts.clear();
                }
            }
            3 => {
                self.contexts.remove(&source);
                self.absent_contexts.remove(&source);
            }
            _ => panic!("a reserved granularity"),
        }
    }

    fn drop_pages(&mut self, granularity: u64, domain: u16, address: u64) {
        self.invalidations[1] += 1;
        match granularity {
            1 => {
                self.pages.clear();
                self.tables.clear();
                self.absent_pages.clear();
            }
            2 => {
                self.pages.retain(|key, _| key.0 != domain);
                self.tables.retain(|key, _| key.0 != domain);
                self.absent_pages.retain(|key| key.0 != domain);
            }
            3 => {
                let size = 0x1000 << (address & 0x3f);
                let from = address & !0xfff & !(size - 1);
                let meets = |at: u64, bytes: u64| at < from + size && from < at + bytes;
                self.pages.retain(|key, page| key.0 != domain || !meets(key.1, page.size));
                self.absent_pages.retain(|key| key.0 != domain || !meets(key.1, 0x1000));
                // The hint that tables stay is not given.
                assert_eq!(address & 0x40, 0);
                self.tables.retain(|key, _| key.0 != domain || !meets(key.2, 0x1000 << (9 * (key.1 - 1))));
            }
            _ => panic!("a reserved granularity"),
        }
    }
}
