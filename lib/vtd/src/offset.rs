//! Offsets of registers (VT-d, "Register Location").

/// Version.
pub const VERSION: u16 = 0x00;
/// Capability.
pub const CAPABILITY: u16 = 0x08;
/// Extended Capability.
pub const EXTENDED_CAPABILITY: u16 = 0x10;
/// Global Command, 32 bits.
pub const GLOBAL_COMMAND: u16 = 0x18;
/// Global Status, 32 bits.
pub const GLOBAL_STATUS: u16 = 0x1c;
/// Root Table Address.
pub const ROOT_TABLE: u16 = 0x20;
/// Context Command.
pub const CONTEXT_COMMAND: u16 = 0x28;
/// Fault Status, 32 bits.
pub const FAULT_STATUS: u16 = 0x34;
/// Fault Event Control, 32 bits.
pub const FAULT_CONTROL: u16 = 0x38;
/// Protected Memory Enable, 32 bits.
pub const PROTECTED_ENABLE: u16 = 0x64;
/// Protected Low-Memory Base, 32 bits.
pub const PROTECTED_LOW_BASE: u16 = 0x68;
/// Protected Low-Memory Limit, 32 bits.
pub const PROTECTED_LOW_LIMIT: u16 = 0x6c;
/// Protected High-Memory Base.
pub const PROTECTED_HIGH_BASE: u16 = 0x70;
/// Protected High-Memory Limit.
pub const PROTECTED_HIGH_LIMIT: u16 = 0x78;
/// Invalidation Queue Head.
pub const QUEUE_HEAD: u16 = 0x80;
/// Invalidation Queue Tail.
pub const QUEUE_TAIL: u16 = 0x88;
/// Invalidation Queue Address.
pub const QUEUE_ADDRESS: u16 = 0x90;
/// Interrupt Remapping Table Address.
pub const INTERRUPT_TABLE: u16 = 0xb8;

/// Bytes of a fault record.
pub const FAULT_RECORD_BYTES: u16 = 16;
/// Of the two registers that the capability places: the invalidated address, and behind it the command.
pub const IOTLB_COMMAND: u16 = 8;
