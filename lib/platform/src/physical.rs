//! Reading physical memory, as a trait: tables are parsed from the machine, or from a test's bytes.

/// The address is outside what this image can read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable;

/// Physical memory that firmware and boot loader filled; read by copies only.
pub trait ReadPhysical {
    /// Copies `bytes.len()` bytes at physical address `address` out.
    ///
    /// # Errors
    ///
    /// [`Unreadable`] where any of them lies outside what can be read; `bytes` is unspecified then.
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), Unreadable>;

    /// Reads an array.
    ///
    /// # Errors
    ///
    /// As [`ReadPhysical::read`].
    fn read_array<const N: usize>(&self, address: u64) -> Result<[u8; N], Unreadable> {
        let mut bytes = [0; N];
        self.read(address, &mut bytes)?;
        Ok(bytes)
    }

    /// Reads a little-endian 16-bit number.
    ///
    /// # Errors
    ///
    /// As [`ReadPhysical::read`].
    fn read_u16(&self, address: u64) -> Result<u16, Unreadable> {
        self.read_array(address).map(u16::from_le_bytes)
    }

    /// Reads a little-endian 32-bit number.
    ///
    /// # Errors
    ///
    /// As [`ReadPhysical::read`].
    fn read_u32(&self, address: u64) -> Result<u32, Unreadable> {
        self.read_array(address).map(u32::from_le_bytes)
    }

    /// Reads a little-endian 64-bit number.
    ///
    /// # Errors
    ///
    /// As [`ReadPhysical::read`].
    fn read_u64(&self, address: u64) -> Result<u64, Unreadable> {
        self.read_array(address).map(u64::from_le_bytes)
    }

    /// Reads a 32-bit register of a device at an address that is a multiple of 4, by one access.
    ///
    /// # Errors
    ///
    /// As [`ReadPhysical::read`].
    fn read_register(&self, address: u64) -> Result<u32, Unreadable> {
        self.read_u32(address)
    }

    /// Adds up `length` bytes modulo 256, as the checksums of the firmware's tables do.
    ///
    /// # Errors
    ///
    /// As [`ReadPhysical::read`].
    fn byte_sum(&self, address: u64, length: u64) -> Result<u8, Unreadable> {
        let end = address.checked_add(length).ok_or(Unreadable)?;
        let mut sum = 0_u8;
        let mut chunk = [0; 64];
        let mut at = address;
        while at < end {
            let left = usize::try_from(end - at).map_or(chunk.len(), |left| left.min(chunk.len()));
            self.read(at, &mut chunk[..left])?;
            sum = chunk[..left].iter().fold(sum, |sum, &byte| sum.wrapping_add(byte));
            at += left as u64;
        }
        Ok(sum)
    }
}

/// Physical memory that can be written too.
pub trait WritePhysical: ReadPhysical {
    /// Writes `bytes` at physical address `address`.
    ///
    /// # Errors
    ///
    /// [`Unreadable`] where any of them lies outside what can be written.
    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), Unreadable>;
}

/// Bytes of a made-up machine, from physical address 0 on.
#[cfg(test)]
pub(crate) struct TestMemory(pub(crate) Vec<u8>);

#[cfg(test)]
impl TestMemory {
    /// One MiB of zeros.
    pub(crate) fn new() -> Self {
        Self(vec![0; 0x10_0000])
    }

    /// Puts `bytes` at `address`.
    pub(crate) fn put(&mut self, address: usize, bytes: &[u8]) {
        self.0[address..address + bytes.len()].copy_from_slice(bytes);
    }

    /// Sets the byte at `address + at` such that `length` bytes at `address` add up to zero.
    pub(crate) fn seal(&mut self, address: usize, length: usize, at: usize) {
        self.0[address + at] = 0;
        let sum = self.0[address..address + length].iter().fold(0_u8, |sum, &byte| sum.wrapping_add(byte));
        self.0[address + at] = sum.wrapping_neg();
    }
}

#[cfg(test)]
impl ReadPhysical for TestMemory {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), Unreadable> {
        let start = usize::try_from(address).map_err(|_| Unreadable)?;
        let end = start.checked_add(bytes.len()).ok_or(Unreadable)?;
        bytes.copy_from_slice(self.0.get(start..end).ok_or(Unreadable)?);
        Ok(())
    }
}

#[cfg(test)]
impl WritePhysical for TestMemory {
    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), Unreadable> {
        let start = usize::try_from(address).map_err(|_| Unreadable)?;
        let end = start.checked_add(bytes.len()).ok_or(Unreadable)?;
        self.0.get_mut(start..end).ok_or(Unreadable)?.copy_from_slice(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_covers_every_byte_once() {
        let mut memory = TestMemory::new();
        memory.put(0x1000, &[1; 200]);
        assert_eq!(memory.byte_sum(0x1000, 199), Ok(199));
        assert_eq!(memory.byte_sum(0xfff, 202), Ok(200));
        assert_eq!(memory.byte_sum(0x1000, 0), Ok(0));
        memory.put(0, &[1; 200]);
        assert_eq!([memory.byte_sum(0, 100), memory.byte_sum(1, 3)], [Ok(100), Ok(3)]);
    }

    #[test]
    fn a_register_is_what_lies_in_memory() {
        let mut memory = TestMemory::new();
        memory.put(0x1004, &[4, 3, 2, 1]);
        assert_eq!(memory.read_register(0x1004), Ok(0x102_0304));
        assert_eq!(memory.read_register(0x10_0000), Err(Unreadable));
    }

    #[test]
    fn a_wrapping_range_is_unreadable() {
        let memory = TestMemory::new();
        assert_eq!(memory.byte_sum(u64::MAX, 2), Err(Unreadable));
        assert_eq!(memory.read_u64(0xf_fffc), Err(Unreadable));
    }
}
