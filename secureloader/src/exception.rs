//! Exceptions of the secure loader: none is expected, so each is a stop with a name.
//!
//! The table stays in force until the runtime has loaded its own.

/// The interrupt descriptor table's entries.
pub const VECTORS: usize = 32;
/// Bytes between two of the stubs in `entry.S`.
pub const STUB_SIZE: u64 = 16;
/// The 64-bit code segment of `entry.S`.
const CODE_SELECTOR: u64 = 8;
/// A present interrupt gate of privilege level 0.
const INTERRUPT_GATE: u64 = 0x8e << 40;

/// What a stub and the processor leave on the stack (SDM, "64-Bit Mode Stack Frame").
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    /// Exception vector.
    pub vector: u64,
    /// Error code, 0 where the vector has none.
    pub error_code: u64,
    /// Instruction pointer of the interrupted code.
    pub rip: u64,
}

/// Returns a 64-bit interrupt gate to `handler` (SDM, "64-Bit Mode IDT").
#[must_use]
pub const fn gate(handler: u64) -> [u64; 2] {
    let low = handler & 0xffff | CODE_SELECTOR << 16 | INTERRUPT_GATE | (handler >> 16 & 0xffff) << 48;
    [low, handler >> 32]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_is_the_manuals() {
        assert_eq!(gate(0xffff_ffff_8000_1230), [0x8000_8e00_0008_1230, 0xffff_ffff]);
    }
}
