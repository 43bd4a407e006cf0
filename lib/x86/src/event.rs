//! Events: exceptions, interrupts and NMIs (SDM, "Interrupt and Exception Handling").

/// Exception vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vector(pub u8);

impl Vector {
    /// Divide error.
    pub const DE: Self = Self(0);
    /// Debug.
    pub const DB: Self = Self(1);
    /// Non-maskable interrupt.
    pub const NMI: Self = Self(2);
    /// Breakpoint.
    pub const BP: Self = Self(3);
    /// Overflow.
    pub const OF: Self = Self(4);
    /// Invalid opcode.
    pub const UD: Self = Self(6);
    /// Device not available.
    pub const NM: Self = Self(7);
    /// Double fault.
    pub const DF: Self = Self(8);
    /// Invalid TSS.
    pub const TS: Self = Self(10);
    /// Segment not present.
    pub const NP: Self = Self(11);
    /// Stack-segment fault.
    pub const SS: Self = Self(12);
    /// General protection.
    pub const GP: Self = Self(13);
    /// Page fault.
    pub const PF: Self = Self(14);
    /// Alignment check.
    pub const AC: Self = Self(17);
    /// Machine check.
    pub const MC: Self = Self(18);

    /// Returns whether the exception pushes an error code, those of control-flow enforcement and later excepted.
    #[must_use]
    pub const fn has_error_code(self) -> bool {
        matches!(self.0, 8 | 10..=14 | 17)
    }
}

/// A fault or interrupt that the guest is to take before its next instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A hardware exception, with its error code where the vector has one.
    Exception {
        /// Which.
        vector: Vector,
        /// Error code pushed on the stack.
        error_code: Option<u32>,
    },
    /// A page fault; CR2 is loaded with the address first.
    PageFault {
        /// Faulting linear address.
        address: u64,
        /// Error code pushed on the stack.
        error_code: u32,
    },
    /// A non-maskable interrupt.
    Nmi,
}

impl Event {
    /// `#GP(0)`.
    pub const GP0: Self = Self::Exception { vector: Vector::GP, error_code: Some(0) };
    /// `#UD`.
    pub const UD: Self = Self::Exception { vector: Vector::UD, error_code: None };
}

#[cfg(test)]
mod tests {
    use super::Vector;

    #[test]
    fn error_codes_are_those_of_the_manual_s_table() {
        // SDM, "Exceptions and Interrupts": the table's column "Error Code".
        let with: Vec<u8> = (0..=255).filter(|&vector| Vector(vector).has_error_code()).collect();
        assert_eq!(with, [8, 10, 11, 12, 13, 14, 17]);
    }
}
