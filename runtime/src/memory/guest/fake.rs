//! Guest memory in an array, for host tests.

use super::{GuestMemory, Refused};
use core::cell::{Cell, RefCell};
use core::ops::Range;
use x86::address::GuestPhysAddr;

/// Memory of some bytes at 0; ranges of it can be refused, or refused to writes.
#[derive(Debug)]
pub(crate) struct FakeMemory {
    bytes: RefCell<Vec<u8>>,
    /// Refused altogether, as the hypervisor's memory is.
    pub(crate) hidden: Range<u64>,
    /// Refused to writes, as a hypapp protects memory.
    pub(crate) read_only: Range<u64>,
    /// Refused to all but fetches.
    pub(crate) execute_only: Range<u64>,
    pub(crate) physical_address_bits: u8,
    pub(crate) has_1gib_pages: bool,
    /// So many exchanges find another value, as if another processor had been quicker.
    pub(crate) lost_races: Cell<usize>,
}

impl FakeMemory {
    /// Zeroed memory of `size` bytes at 0 on a machine of 39 address bits.
    pub(crate) fn new(size: usize) -> Self {
        Self {
            bytes: RefCell::new(vec![0; size]),
            hidden: 0..0,
            read_only: 0..0,
            execute_only: 0..0,
            physical_address_bits: 39,
            has_1gib_pages: true,
            lost_races: Cell::new(0),
        }
    }

    /// Copies `bytes` to `address`, pages and protections notwithstanding.
    pub(crate) fn put(&self, address: u64, bytes: &[u8]) {
        self.bytes.borrow_mut()[address as usize..][..bytes.len()].copy_from_slice(bytes);
    }

    /// The `N` bytes at `address`.
    pub(crate) fn get<const N: usize>(&self, address: u64) -> [u8; N] {
        self.bytes.borrow()[address as usize..][..N].try_into().unwrap()
    }

    /// Sets a 64-bit word, such as a paging-structure entry.
    pub(crate) fn put_u64(&self, address: u64, value: u64) {
        self.put(address, &value.to_le_bytes());
    }

    /// A 64-bit word.
    pub(crate) fn get_u64(&self, address: u64) -> u64 {
        u64::from_le_bytes(self.get(address))
    }

    /// A 32-bit word.
    pub(crate) fn get_u32(&self, address: u64) -> u32 {
        u32::from_le_bytes(self.get(address))
    }

    /// A 16-bit word.
    pub(crate) fn get_u16(&self, address: u64) -> u16 {
        u16::from_le_bytes(self.get(address))
    }

    fn check(
        &self,
        address: GuestPhysAddr,
        length: usize,
        refused: &[&Range<u64>],
    ) -> Result<usize, Refused> {
        assert!(address.page_offset() + length <= 4096, "access at {address:?} crosses a page");
        let (start, end) = (address.get(), address.get() + length as u64);
        let is_refused = refused.iter().any(|range| range.start < end && start < range.end);
        if is_refused || end > self.bytes.borrow().len() as u64 { Err(Refused) } else { Ok(start as usize) }
    }
}

impl GuestMemory for FakeMemory {
    fn read(&self, address: GuestPhysAddr, bytes: &mut [u8]) -> Result<(), Refused> {
        self.check(address, bytes.len(), &[&self.execute_only])?;
        self.fetch(address, bytes)
    }

    fn fetch(&self, address: GuestPhysAddr, bytes: &mut [u8]) -> Result<(), Refused> {
        let start = self.check(address, bytes.len(), &[&self.hidden])?;
        bytes.copy_from_slice(&self.bytes.borrow()[start..][..bytes.len()]);
        Ok(())
    }

    fn write(&self, address: GuestPhysAddr, bytes: &[u8]) -> Result<(), Refused> {
        let start = self.check(address, bytes.len(), &[&self.hidden, &self.read_only])?;
        self.bytes.borrow_mut()[start..][..bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn read_words(&self, address: GuestPhysAddr, words: &mut [u64]) -> Result<(), Refused> {
        assert!(address.get().is_multiple_of(8), "words at {address:?} are not aligned");
        self.check(address, 8 * words.len(), &[&self.hidden])?;
        for (word, at) in words.iter_mut().zip((address.get()..).step_by(8)) {
            *word = self.get_u64(at);
        }
        Ok(())
    }

    fn compare_exchange(&self, address: GuestPhysAddr, current: u64, new: u64) -> Result<bool, Refused> {
        assert!(address.get().is_multiple_of(8), "exchange at {address:?} is not aligned");
        self.check(address, 8, &[&self.hidden, &self.read_only])?;
        if self.lost_races.get() > 0 {
            self.lost_races.set(self.lost_races.get() - 1);
            return Ok(false);
        }
        let is_current = self.get_u64(address.get()) == current;
        if is_current {
            self.put_u64(address.get(), new);
        }
        Ok(is_current)
    }

    fn physical_address_bits(&self) -> u8 {
        self.physical_address_bits
    }

    fn has_1gib_pages(&self) -> bool {
        self.has_1gib_pages
    }
}
