//! The unit's registers ("Register Descriptions").

use bitflags::bitflags;

/// Offsets in the unit's page.
pub(crate) mod at {
    pub(crate) const VERSION: usize = 0x00;
    pub(crate) const CAPABILITY: usize = 0x08;
    pub(crate) const EXTENDED_CAPABILITY: usize = 0x10;
    pub(crate) const GLOBAL_COMMAND: usize = 0x18;
    pub(crate) const GLOBAL_STATUS: usize = 0x1c;
    pub(crate) const ROOT_TABLE: usize = 0x20;
    pub(crate) const CONTEXT_COMMAND: usize = 0x28;
    pub(crate) const FAULT_STATUS: usize = 0x34;
    pub(crate) const FAULT_EVENT: usize = 0x38;
    pub(crate) const PROTECTED_ENABLE: usize = 0x64;
    pub(crate) const PROTECTED_LOW_BASE: usize = 0x68;
    pub(crate) const PROTECTED_LOW_LIMIT: usize = 0x6c;
    pub(crate) const PROTECTED_HIGH_BASE: usize = 0x70;
    pub(crate) const PROTECTED_HIGH_LIMIT: usize = 0x78;
    pub(crate) const QUEUE_HEAD: usize = 0x80;
    pub(crate) const QUEUE_TAIL: usize = 0x88;
    pub(crate) const QUEUE_ADDRESS: usize = 0x90;
    pub(crate) const COMPLETION_STATUS: usize = 0x9c;
    pub(crate) const COMPLETION_EVENT: usize = 0xa0;
    pub(crate) const INTERRUPT_TABLE: usize = 0xb8;
    /// Where the capability registers say that these are.
    pub(crate) const INVALIDATE_ADDRESS: usize = 0x100;
    pub(crate) const IOTLB: usize = INVALIDATE_ADDRESS + 8;
    pub(crate) const FAULT_RECORDS: usize = 0x200;
}

/// Number of fault records, of 16 bytes each.
pub(crate) const RECORDS: usize = 4;
/// Number of register pages and their size.
pub(crate) const SIZE: usize = 0x1000;
/// What of a protected region's base is not there: it is of whole 2 MiB.
pub(crate) const PROTECTED_LOW_BITS: u32 = 0x1f_ffff;

/// Version 1.0.
pub(crate) const VERSION: u32 = 0x10;
/// 256 domains; protected low and high memory; tables of 3 and 4 levels; 48 bits; zero-length reads; 2 MiB and 1 GiB
/// leaves; invalidation by page, of up to 2^18 pages; drains of reads and writes.
pub(crate) const CAPABILITY: u64 = 2
    | 1 << 5
    | 1 << 6
    | 0b110 << 8
    | 47 << 16
    | 1 << 22
    | (at::FAULT_RECORDS as u64 / 16) << 24
    | 0b11 << 34
    | 1 << 39
    | (RECORDS as u64 - 1) << 40
    | 18 << 48
    | 0b11 << 54;
/// Coherent; queued invalidation; interrupt remapping, with extended interrupt mode; pass-through.
pub(crate) const EXTENDED_CAPABILITY: u64 =
    1 | 1 << 1 | 1 << 3 | 1 << 4 | 1 << 6 | (at::INVALIDATE_ADDRESS as u64 / 16) << 8 | 15 << 20;

bitflags! {
    /// Of the global command and status registers alike.
    #[derive(Clone, Copy, PartialEq, Eq)]
    pub(crate) struct Global: u32 {
        const TRANSLATION = 1 << 31;
        const ROOT_TABLE = 1 << 30;
        const WRITE_BUFFER = 1 << 27;
        const QUEUE = 1 << 26;
        const INTERRUPT_REMAPPING = 1 << 25;
        const INTERRUPT_TABLE = 1 << 24;
        const COMPATIBILITY_FORMAT = 1 << 23;
        /// Bits that are kept; each of the others asks for something once.
        const LEVELS = Self::TRANSLATION.bits() | Self::QUEUE.bits() | Self::INTERRUPT_REMAPPING.bits()
            | Self::COMPATIBILITY_FORMAT.bits();
    }
}

bitflags! {
    /// Of the fault status register.
    #[derive(Clone, Copy, PartialEq, Eq)]
    pub(crate) struct FaultStatus: u32 {
        const OVERFLOW = 1;
        const PENDING = 1 << 1;
        const QUEUE_ERROR = 1 << 4;
        /// What a write of one clears.
        const CLEARED_BY_ONE = 0x71;
    }
}

/// The registers' page.
pub(crate) struct Registers([u32; SIZE / 4]);

impl Registers {
    pub(crate) fn at_reset() -> Self {
        let mut registers = Self([0; SIZE / 4]);
        registers.put(at::VERSION, VERSION);
        registers.put64(at::CAPABILITY, CAPABILITY);
        registers.put64(at::EXTENDED_CAPABILITY, EXTENDED_CAPABILITY);
        // Both interrupts are masked.
        registers.put(at::FAULT_EVENT, 1 << 31);
        registers.put(at::COMPLETION_EVENT, 1 << 31);
        registers
    }

    /// The register at a multiple of four below [`SIZE`].
    pub(crate) fn get(&self, offset: usize) -> u32 {
        self.0[offset / 4]
    }

    pub(crate) fn put(&mut self, offset: usize, value: u32) {
        self.0[offset / 4] = value;
    }

    pub(crate) fn get64(&self, offset: usize) -> u64 {
        u64::from(self.get(offset)) | u64::from(self.get(offset + 4)) << 32
    }

    pub(crate) fn put64(&mut self, offset: usize, value: u64) {
        let [low, high] = halves(value);
        self.put(offset, low);
        self.put(offset + 4, high);
    }

    pub(crate) fn status(&self) -> Global {
        Global::from_bits_truncate(self.get(at::GLOBAL_STATUS))
    }
}

/// Low and high half.
pub(crate) fn halves(value: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
    [u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])]
}

/// The low 16 bits from bit `from` on.
pub(crate) fn bits16(value: u64, from: u32) -> u16 {
    let [a, b, ..] = (value >> from).to_le_bytes();
    u16::from_le_bytes([a, b])
}
