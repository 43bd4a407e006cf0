//! Fake physical memory with a history of writes.

use core::cell::RefCell;
use std::collections::BTreeMap;

use crate::PhysMemory;
use x86::address::HostPhysAddr;
use x86::paging::{PAGE_BYTES, PAGE_SIZE};

/// One write, as other processors would see it happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// An aligned 64-bit write, which is atomic.
    Word {
        /// Where.
        address: HostPhysAddr,
        /// What was there before.
        old: u64,
        /// What is there now.
        new: u64,
    },
    /// A copy of several bytes, in no particular order.
    Bytes {
        /// Where the first byte went.
        address: HostPhysAddr,
        /// The bytes.
        bytes: Vec<u8>,
    },
}

/// Sparse physical memory: pages appear when they are written.
///
/// Bytes never written read as the background byte, which a test chooses so that reading uninitialised
/// memory shows.
#[derive(Clone, Debug)]
pub struct SimMemory {
    background: u8,
    pages: RefCell<BTreeMap<u64, Box<[u8; PAGE_BYTES]>>>,
    start: RefCell<BTreeMap<u64, Box<[u8; PAGE_BYTES]>>>,
    history: RefCell<Vec<Write>>,
    reads: RefCell<u64>,
}

impl SimMemory {
    /// Memory in which every byte reads as `background` until it is written.
    #[must_use]
    pub fn new(background: u8) -> Self {
        Self {
            background,
            pages: RefCell::default(),
            start: RefCell::default(),
            history: RefCell::default(),
            reads: RefCell::default(),
        }
    }

    /// Returns all writes since the last [`Self::clear_history`], oldest first.
    #[must_use]
    pub fn history(&self) -> Vec<Write> {
        self.history.borrow().clone()
    }

    /// Forgets the history; [`Self::replay`] starts from the memory as it is now.
    pub fn clear_history(&self) {
        self.history.borrow_mut().clear();
        *self.reads.borrow_mut() = 0;
        self.start.replace(self.pages.borrow().clone());
    }

    /// Returns the number of 64-bit reads since the last [`Self::clear_history`].
    #[must_use]
    pub fn word_reads(&self) -> u64 {
        *self.reads.borrow()
    }

    /// Shows `visit` the memory after each write of the history, with that write.
    pub fn replay(&self, mut visit: impl FnMut(&Self, &Write)) {
        let past = Self::new(self.background);
        past.pages.replace(self.start.borrow().clone());
        for write in self.history.borrow().iter() {
            match write {
                Write::Word { address, new, .. } => past.put(*address, &new.to_le_bytes()),
                Write::Bytes { address, bytes } => past.put(*address, bytes),
            }
            visit(&past, write);
        }
    }

    fn get(&self, address: HostPhysAddr, bytes: &mut [u8]) {
        let pages = self.pages.borrow();
        let (mut at, mut rest) = (address.get(), bytes);
        while !rest.is_empty() {
            let (chunk, behind) = rest.split_at_mut(rest.len().min(to_page_end(at)));
            match pages.get(&(at / PAGE_SIZE)) {
                Some(page) => chunk.copy_from_slice(&page[offset(at)..][..chunk.len()]),
                None => chunk.fill(self.background),
            }
            at += chunk.len() as u64;
            rest = behind;
        }
    }

    fn put(&self, address: HostPhysAddr, bytes: &[u8]) {
        let mut pages = self.pages.borrow_mut();
        let (mut at, mut rest) = (address.get(), bytes);
        while !rest.is_empty() {
            let (chunk, behind) = rest.split_at(rest.len().min(to_page_end(at)));
            let page = pages.entry(at / PAGE_SIZE).or_insert_with(|| Box::new([self.background; PAGE_BYTES]));
            page[offset(at)..][..chunk.len()].copy_from_slice(chunk);
            at += chunk.len() as u64;
            rest = behind;
        }
    }
}

impl PhysMemory for SimMemory {
    fn read(&self, address: HostPhysAddr, bytes: &mut [u8]) {
        self.get(address, bytes);
    }

    fn write(&self, address: HostPhysAddr, bytes: &[u8]) {
        self.history.borrow_mut().push(Write::Bytes { address, bytes: bytes.to_vec() });
        self.put(address, bytes);
    }

    fn read_u64(&self, address: HostPhysAddr) -> u64 {
        assert_aligned(address);
        *self.reads.borrow_mut() += 1;
        let mut bytes = [0; 8];
        self.get(address, &mut bytes);
        u64::from_le_bytes(bytes)
    }

    fn write_u64(&self, address: HostPhysAddr, value: u64) {
        let old = self.read_u64(address);
        *self.reads.borrow_mut() -= 1;
        self.history.borrow_mut().push(Write::Word { address, old, new: value });
        self.put(address, &value.to_le_bytes());
    }
}

impl PhysMemory for &SimMemory {
    fn read(&self, address: HostPhysAddr, bytes: &mut [u8]) {
        (**self).read(address, bytes);
    }

    fn write(&self, address: HostPhysAddr, bytes: &[u8]) {
        (**self).write(address, bytes);
    }

    fn read_u64(&self, address: HostPhysAddr) -> u64 {
        (**self).read_u64(address)
    }

    fn write_u64(&self, address: HostPhysAddr, value: u64) {
        (**self).write_u64(address, value);
    }
}

fn to_page_end(address: u64) -> usize {
    PAGE_BYTES - offset(address)
}

fn offset(address: u64) -> usize {
    HostPhysAddr::new(address).page_offset()
}

fn assert_aligned(address: HostPhysAddr) {
    assert!(address.get().is_multiple_of(8), "64-bit access at {address:?} is not aligned");
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: HostPhysAddr = HostPhysAddr::new(0x1ff8);

    #[test]
    fn unwritten_memory_reads_as_the_background() {
        assert_eq!(SimMemory::new(0xa5).read_u64(AT), 0xa5a5_a5a5_a5a5_a5a5);
    }

    #[test]
    fn bytes_cross_pages() {
        let memory = SimMemory::new(0);
        memory.write(HostPhysAddr::new(0x1ffe), &[1, 2, 3, 4]);
        let mut bytes = [0; 6];
        memory.read(HostPhysAddr::new(0x1ffd), &mut bytes);
        assert_eq!(bytes, [0, 1, 2, 3, 4, 0]);
    }

    #[test]
    fn history_keeps_order_and_old_values_and_replays() {
        let memory = SimMemory::new(0);
        memory.write_u64(AT, 1);
        memory.clear_history();
        memory.write_u64(AT, 2);
        memory.write(AT, &[9]);
        memory.write_u64(AT, 3);
        assert_eq!(memory.history()[0], Write::Word { address: AT, old: 1, new: 2 });
        assert_eq!(memory.history()[2], Write::Word { address: AT, old: 9, new: 3 });
        let mut seen = Vec::new();
        memory.replay(|past, _| seen.push(past.read_u64(AT)));
        assert_eq!(seen, [2, 9, 3]);
    }

    #[test]
    #[should_panic(expected = "not aligned")]
    fn an_unaligned_word_is_refused() {
        SimMemory::new(0).write_u64(HostPhysAddr::new(4), 0);
    }
}
