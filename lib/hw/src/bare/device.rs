//! Registers of a device, in pages that are mapped for them.

use core::ptr;

/// Registers of one device, each read and written by one access.
#[derive(Debug)]
pub struct DeviceRegisters {
    base: *mut u8,
    bytes: usize,
}

// SAFETY: the registers are the same for every processor, and who has the value has them.
unsafe impl Send for DeviceRegisters {}

impl DeviceRegisters {
    /// # Safety
    ///
    /// `bytes` from `base` on, which is aligned to 8, are mapped as a device's memory for as long as the value is used.
    /// Nobody else writes the registers meanwhile, and what the value's holder writes breaks nothing of ours.
    #[must_use]
    pub const unsafe fn new(base: *mut u8, bytes: usize) -> Self {
        Self { base, bytes }
    }

    /// Reads a register of 32 bits, at a multiple of 4; all ones where there is none.
    #[must_use]
    pub fn read_u32(&self, offset: usize) -> u32 {
        // SAFETY: mapped by the contract of `new`, aligned and within by the check.
        self.place(offset).map_or(u32::MAX, |place| unsafe { ptr::read_volatile(place) })
    }

    /// Writes a register of 32 bits, at a multiple of 4; nothing where there is none.
    pub fn write_u32(&self, offset: usize, value: u32) {
        if let Some(place) = self.place(offset) {
            // SAFETY: as in `read_u32`; what it does is the holder's to say, by the contract of `new`.
            unsafe { ptr::write_volatile(place, value) }
        }
    }

    /// Reads a register of 64 bits, at a multiple of 8; all ones where there is none.
    #[must_use]
    pub fn read_u64(&self, offset: usize) -> u64 {
        // SAFETY: as in `read_u32`.
        self.place(offset).map_or(u64::MAX, |place| unsafe { ptr::read_volatile(place) })
    }

    /// Writes a register of 64 bits, at a multiple of 8; nothing where there is none.
    pub fn write_u64(&self, offset: usize, value: u64) {
        if let Some(place) = self.place(offset) {
            // SAFETY: as in `write_u32`.
            unsafe { ptr::write_volatile(place, value) }
        }
    }

    fn place<T>(&self, offset: usize) -> Option<*mut T> {
        let width = size_of::<T>();
        let is_there = offset.is_multiple_of(width) && offset.checked_add(width)? <= self.bytes;
        is_there.then(|| self.base.wrapping_add(offset).cast())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_are_read_and_written_within_their_pages_alone() {
        let mut memory = [0x1122_3344_5566_7788_u64, 2, u64::MAX - 7];
        // SAFETY: memory of the test, of which two words are lent.
        let registers = unsafe { DeviceRegisters::new(memory.as_mut_ptr().cast(), 16) };
        assert_eq!((registers.read_u32(4), registers.read_u64(8)), (0x1122_3344, 2));
        for none in [2, 16, usize::MAX & !7] {
            assert_eq!(registers.read_u32(none), u32::MAX, "{none:#x}");
            registers.write_u32(none, 0);
        }
        for none in [4, 12, 16, usize::MAX & !7] {
            assert_eq!(registers.read_u64(none), u64::MAX, "{none:#x}");
            registers.write_u64(none, 0);
        }
        registers.write_u32(8, 0xaaaa);
        registers.write_u32(12, 0xbbbb);
        assert_eq!(registers.read_u64(8), 0xbbbb_0000_aaaa);
        registers.write_u64(0, 7);
        assert_eq!(memory, [7, 0xbbbb_0000_aaaa, u64::MAX - 7]);
    }
}
