//! Memory as the processor sees it, and what of it has come as far as the unit sees.

use core::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use hw::PhysMemory;
use x86::address::HostPhysAddr;

use crate::TableMemory;

const LINE: u64 = 64;

/// Words of 8 bytes; what was never written reads as the background, which is no entry that anybody wants.
#[derive(Debug)]
pub(crate) struct SimMemory {
    is_coherent: bool,
    has_write_buffer: bool,
    words: RefCell<Words>,
    /// Writes by the processor, in order.
    pub(crate) history: RefCell<Vec<(u64, u64)>>,
}

#[derive(Debug, Default)]
struct Words {
    /// What the processor reads back.
    cached: BTreeMap<u64, u64>,
    /// Lines that memory has not, where walks do not look into caches.
    dirty: BTreeSet<u64>,
    /// Words on the way to memory, where there is a write buffer.
    buffered: BTreeMap<u64, u64>,
    /// What the unit walks.
    there: BTreeMap<u64, u64>,
}

const BACKGROUND: u64 = 0x5a5a_5a5a_5a5a_5a5b;

impl SimMemory {
    pub(crate) fn new(is_coherent: bool, has_write_buffer: bool) -> Self {
        Self { is_coherent, has_write_buffer, words: RefCell::default(), history: RefCell::default() }
    }

    /// What a walk of the unit reads.
    pub(super) fn walked(&self, address: u64) -> u64 {
        self.words.borrow().there.get(&address).copied().unwrap_or(BACKGROUND)
    }

    /// What the queue reads: write buffers are no hindrance to it.
    pub(super) fn fetched(&self, address: u64) -> u64 {
        let words = self.words.borrow();
        words.buffered.get(&address).copied().unwrap_or_else(|| {
            drop(words);
            self.walked(address)
        })
    }

    /// A write by the unit or a device, which caches see.
    pub(super) fn put(&self, address: u64, value: u64) {
        let mut words = self.words.borrow_mut();
        words.cached.insert(address, value);
        words.there.insert(address, value);
    }

    /// The command of the unit's.
    pub(super) fn flush_write_buffer(&self) {
        let words = &mut *self.words.borrow_mut();
        words.there.append(&mut words.buffered);
    }

    fn send(&self, words: &mut Words, address: u64) {
        let value = words.cached.get(&address).copied().unwrap_or(BACKGROUND);
        let to = if self.has_write_buffer { &mut words.buffered } else { &mut words.there };
        to.insert(address, value);
    }
}

impl PhysMemory for &SimMemory {
    fn read(&self, _: HostPhysAddr, _: &mut [u8]) {
        unreachable!("tables are read by words");
    }

    fn write(&self, address: HostPhysAddr, bytes: &[u8]) {
        assert!(bytes.len().is_multiple_of(8), "whole words are written");
        for (at, word) in (address.get()..).step_by(8).zip(bytes.chunks(8)) {
            self.write_u64(HostPhysAddr::new(at), u64::from_le_bytes(word.try_into().unwrap()));
        }
    }

    fn read_u64(&self, address: HostPhysAddr) -> u64 {
        assert!(address.get().is_multiple_of(8));
        self.words.borrow().cached.get(&address.get()).copied().unwrap_or(BACKGROUND)
    }

    fn write_u64(&self, address: HostPhysAddr, value: u64) {
        assert!(address.get().is_multiple_of(8));
        let words = &mut *self.words.borrow_mut();
        words.cached.insert(address.get(), value);
        self.history.borrow_mut().push((address.get(), value));
        if self.is_coherent {
            self.send(words, address.get());
        } else {
            words.dirty.insert(address.get() / LINE);
        }
    }
}

impl TableMemory for &SimMemory {
    fn write_back(&self, address: HostPhysAddr, bytes: u64) {
        let words = &mut *self.words.borrow_mut();
        for line in address.get() / LINE..(address.get() + bytes).div_ceil(LINE) {
            if words.dirty.remove(&line) {
                (line * LINE..(line + 1) * LINE).step_by(8).for_each(|at| self.send(words, at));
            }
        }
    }
}
