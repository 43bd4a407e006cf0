//! Multiboot 1 (Multiboot Specification version 0.6.96, "Boot information format").

use super::{BootInformation, BootInformationError};
use crate::handoff::{COMMAND_LINE_CAPACITY, MemoryRange};
use crate::physical::ReadPhysical;

/// Value of EAX at the entry of a kernel that a Multiboot 1 loader started.
pub const MAGIC: u32 = 0x2bad_b002;

/// `flags`: the command line is valid.
const HAS_COMMAND_LINE: u32 = 1 << 2;
/// `flags`: the module list is valid.
const HAS_MODULES: u32 = 1 << 3;
/// `flags`: the memory map is valid.
const HAS_MEMORY_MAP: u32 = 1 << 6;
/// Bytes of a record's base, length and type.
const RECORD_SIZE: u64 = 20;

impl BootInformation {
    /// Copies the Multiboot 1 information at physical address `info`.
    ///
    /// # Errors
    ///
    /// [`BootInformationError`] where it is incomplete, contradicts itself or does not fit.
    pub fn from_multiboot1(memory: &impl ReadPhysical, info: u32) -> Result<Self, BootInformationError> {
        let field = |offset: u64| memory.read_u32(u64::from(info) + offset);
        let flags = field(0)?;
        let mut this = Self::default();
        if flags & HAS_COMMAND_LINE != 0 {
            this.copy_command_line(memory, field(16)?)?;
        }
        if flags & HAS_MODULES != 0 {
            this.copy_modules(memory, field(20)?, field(24)?)?;
        }
        if flags & HAS_MEMORY_MAP == 0 {
            return Err(BootInformationError::NoMemoryMap);
        }
        this.copy_memory_map(memory, field(44)?, field(48)?)?;
        Ok(this)
    }

    fn copy_command_line(
        &mut self,
        memory: &impl ReadPhysical,
        address: u32,
    ) -> Result<(), BootInformationError> {
        let mut line = [0; COMMAND_LINE_CAPACITY];
        for (i, byte) in line.iter_mut().enumerate() {
            let [read] = memory.read_array(u64::from(address) + i as u64)?;
            *byte = read;
            if read == 0 {
                return self.set_command_line(&line[..i]);
            }
        }
        Err(BootInformationError::CommandLine)
    }

    fn copy_modules(
        &mut self,
        memory: &impl ReadPhysical,
        count: u32,
        address: u32,
    ) -> Result<(), BootInformationError> {
        for i in 0..u64::from(count) {
            let entry = u64::from(address) + 16 * i;
            self.add_module(memory.read_u32(entry)?, memory.read_u32(entry + 4)?)?;
        }
        Ok(())
    }

    fn copy_memory_map(
        &mut self,
        memory: &impl ReadPhysical,
        length: u32,
        address: u32,
    ) -> Result<(), BootInformationError> {
        let mut at = u64::from(address);
        let end = at + u64::from(length);
        while at < end {
            // `size` stands in front of the record and does not count itself.
            let size = u64::from(memory.read_u32(at)?);
            if size < RECORD_SIZE || at + 4 + size > end {
                return Err(BootInformationError::Malformed);
            }
            self.add_memory(MemoryRange {
                base: memory.read_u64(at + 4)?,
                length: memory.read_u64(at + 12)?,
                kind: memory.read_u32(at + 20)?,
                attributes: 1,
            })?;
            at += 4 + size;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::MODULE_CAPACITY;
    use super::*;
    use crate::handoff::{MEMORY_MAP_CAPACITY, PhysRange};
    use crate::physical::TestMemory;

    const INFO: usize = 0x9000;

    struct Loader(TestMemory);

    impl Loader {
        fn new() -> Self {
            let mut loader = Self(TestMemory::new());
            loader.word(INFO, HAS_COMMAND_LINE | HAS_MODULES | HAS_MEMORY_MAP);
            loader.word(INFO + 16, 0x9100);
            loader.0.put(0x9100, b"serial=115200 boot_drive=0x81\0rest");
            loader.modules(&[(0x10_0000, 0x10_2000), (0x20_0000, 0x20_0200)]);
            loader.memory(&[(0, 0x9_fc00, 1), (0x10_0000, 0x3ff0_0000, 1)], 20);
            loader
        }

        fn word(&mut self, address: usize, value: u32) {
            self.0.put(address, &value.to_le_bytes());
        }

        fn modules(&mut self, list: &[(u32, u32)]) {
            self.word(INFO + 20, list.len() as u32);
            self.word(INFO + 24, 0xa000);
            for (i, &(start, end)) in list.iter().enumerate() {
                self.word(0xa000 + 16 * i, start);
                self.word(0xa004 + 16 * i, end);
            }
        }

        fn memory(&mut self, list: &[(u64, u64, u32)], size: u32) {
            self.word(INFO + 44, list.len() as u32 * (size + 4));
            self.word(INFO + 48, 0xb000);
            for (i, &(base, length, kind)) in list.iter().enumerate() {
                let at = 0xb000 + i * (size as usize + 4);
                self.word(at, size);
                self.0.put(at + 4, &base.to_le_bytes());
                self.0.put(at + 12, &length.to_le_bytes());
                self.word(at + 20, kind);
            }
        }

        fn load(&self) -> Result<BootInformation, BootInformationError> {
            BootInformation::from_multiboot1(&self.0, INFO as u32)
        }
    }

    #[test]
    fn everything_is_copied_out() {
        let info = Loader::new().load().unwrap();
        assert_eq!(info.command_line(), "serial=115200 boot_drive=0x81");
        let second = PhysRange { base: 0x20_0000, length: 0x200 };
        assert_eq!(info.modules(), [PhysRange { base: 0x10_0000, length: 0x2000 }, second]);
        let last = MemoryRange { base: 0x10_0000, length: 0x3ff0_0000, kind: 1, attributes: 1 };
        assert_eq!((info.memory_map().len(), info.memory_map()[1]), (2, last));
    }

    #[test]
    fn records_step_by_their_own_size() {
        let mut loader = Loader::new();
        loader.memory(&[(0, 1, 1), (2, 3, 4), (5, 6, 7)], 28);
        let map = loader.load().unwrap().memory_map().to_vec();
        assert_eq!(map[2], MemoryRange { base: 5, length: 6, kind: 7, attributes: 1 });
    }

    #[test]
    fn what_is_flagged_absent_is_not_read() {
        let mut loader = Loader::new();
        loader.word(INFO, HAS_MEMORY_MAP);
        let info = loader.load().unwrap();
        assert_eq!((info.command_line(), info.modules().len()), ("", 0));
        loader.word(INFO, HAS_MODULES);
        assert_eq!(loader.load().unwrap_err(), BootInformationError::NoMemoryMap);
    }

    #[test]
    fn lists_that_do_not_fit_are_named() {
        let mut loader = Loader::new();
        loader.modules(&[(1, 2); MODULE_CAPACITY]);
        assert_eq!(loader.load().unwrap().modules().len(), MODULE_CAPACITY);
        loader.modules(&[(1, 2); MODULE_CAPACITY + 1]);
        assert_eq!(loader.load().unwrap_err(), BootInformationError::TooManyModules);
        let mut loader = Loader::new();
        loader.memory(&[(0, 1, 1); MEMORY_MAP_CAPACITY + 1], 20);
        assert_eq!(loader.load().unwrap_err(), BootInformationError::MemoryMapTooLong);
        let mut loader = Loader::new();
        loader.0.put(0x9100, &[b'x'; COMMAND_LINE_CAPACITY]);
        assert_eq!(loader.load().unwrap_err(), BootInformationError::CommandLine);
        loader.0.put(0x9100, b"log=\xe9\0");
        assert_eq!(loader.load().unwrap_err(), BootInformationError::CommandLine);
    }

    #[test]
    fn contradictions_are_named() {
        let mut loader = Loader::new();
        loader.modules(&[(2, 1)]);
        assert_eq!(loader.load().unwrap_err(), BootInformationError::Malformed);
        let mut loader = Loader::new();
        loader.word(0xb000, 0);
        assert_eq!(loader.load().unwrap_err(), BootInformationError::Malformed);
        loader.word(0xb000, u32::MAX);
        assert_eq!(loader.load().unwrap_err(), BootInformationError::Malformed);
        let mut loader = Loader::new();
        // The last record goes on behind the map.
        for missing in 1..=24 {
            let mut loader = Loader::new();
            loader.word(INFO + 44, 2 * 24 - missing);
            let expected = if missing == 24 { Ok(1) } else { Err(BootInformationError::Malformed) };
            assert_eq!(loader.load().map(|info| info.memory_map().len()), expected, "{missing}");
        }
        loader.word(INFO + 48, 0xffff_fff0);
        assert_eq!(loader.load().unwrap_err(), BootInformationError::Unreadable);
    }
}
