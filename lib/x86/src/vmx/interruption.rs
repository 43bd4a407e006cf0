//! Interruption information and interruptibility (SDM, "VM-Entry Controls for Event Injection";
//! "Guest Non-Register State").

use bitflags::bitflags;

/// Interruption-information word: of VM entry, of VM exit, or of IDT vectoring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interruption(pub u32);

/// Interruption type, bits 10:8 of the word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterruptionType(pub u8);

impl InterruptionType {
    /// External interrupt.
    pub const EXTERNAL: Self = Self(0);
    /// Non-maskable interrupt.
    pub const NMI: Self = Self(2);
    /// Hardware exception.
    pub const HARDWARE_EXCEPTION: Self = Self(3);
    /// Software interrupt: INT n.
    pub const SOFTWARE_INTERRUPT: Self = Self(4);
    /// Privileged software exception: INT1.
    pub const PRIVILEGED_SOFTWARE_EXCEPTION: Self = Self(5);
    /// Software exception: INT3 and INTO.
    pub const SOFTWARE_EXCEPTION: Self = Self(6);
    /// Other event.
    pub const OTHER: Self = Self(7);
}

impl Interruption {
    const VALID: u32 = 1 << 31;
    const ERROR_CODE_VALID: u32 = 1 << 11;
    /// Bit 12 of an exit's word: NMI unblocking due to IRET.
    const NMI_UNBLOCKING: u32 = 1 << 12;

    /// Makes a valid word.
    #[must_use]
    pub const fn new(vector: u8, kind: InterruptionType, has_error_code: bool) -> Self {
        let error = if has_error_code { Self::ERROR_CODE_VALID } else { 0 };
        Self(Self::VALID | error | (kind.0 as u32) << 8 | vector as u32)
    }

    /// Returns whether the word holds an event.
    #[must_use]
    pub const fn is_valid(self) -> bool {
        self.0 & Self::VALID != 0
    }

    /// Vector of the event.
    #[must_use]
    pub const fn vector(self) -> u8 {
        (self.0 & 0xff) as u8
    }

    /// Returns the type of the event.
    #[must_use]
    pub const fn kind(self) -> InterruptionType {
        InterruptionType((self.0 >> 8 & 7) as u8)
    }

    /// Returns whether the event pushes an error code.
    #[must_use]
    pub const fn has_error_code(self) -> bool {
        self.0 & Self::ERROR_CODE_VALID != 0
    }

    /// IRET had removed blocking by NMI before the exit.
    #[must_use]
    pub const fn is_nmi_unblocking(self) -> bool {
        self.0 & Self::NMI_UNBLOCKING != 0
    }

    /// Returns whether the event's delivery needs the length of the instruction that caused it.
    #[must_use]
    pub const fn is_software(self) -> bool {
        matches!(
            self.kind(),
            InterruptionType::SOFTWARE_INTERRUPT
                | InterruptionType::PRIVILEGED_SOFTWARE_EXCEPTION
                | InterruptionType::SOFTWARE_EXCEPTION
        )
    }

    /// Returns an IDT-vectoring word as a VM-entry word: bit 12 is undefined there and must be 0 here.
    #[must_use]
    pub const fn to_entry(self) -> Self {
        Self(self.0 & !Self::NMI_UNBLOCKING)
    }
}

bitflags! {
    /// Interruptibility state.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Interruptibility: u32 {
        /// Blocking by STI.
        const BLOCKING_BY_STI = 1 << 0;
        /// Blocking by MOV SS.
        const BLOCKING_BY_MOV_SS = 1 << 1;
        /// Blocking by SMI.
        const BLOCKING_BY_SMI = 1 << 2;
        /// Blocking by NMI; virtual, where virtual NMIs are on.
        const BLOCKING_BY_NMI = 1 << 3;
        /// Enclave interruption.
        const ENCLAVE_INTERRUPTION = 1 << 4;
    }
}

/// Activity state (SDM, "Guest Non-Register State").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActivityState(pub u32);

impl ActivityState {
    /// Executing instructions.
    pub const ACTIVE: Self = Self(0);
    /// HLT.
    pub const HLT: Self = Self(1);
    /// Shutdown.
    pub const SHUTDOWN: Self = Self(2);
    /// Wait for a start-up IPI.
    pub const WAIT_FOR_SIPI: Self = Self(3);
}

#[cfg(test)]
mod tests {
    use super::{Interruption, InterruptionType};

    #[test]
    fn general_protection_with_error_code() {
        let word = Interruption::new(13, InterruptionType::HARDWARE_EXCEPTION, true);
        assert_eq!(word.0, 0x8000_0b0d);
        assert!(word.is_valid() && word.has_error_code() && !word.is_software());
    }

    #[test]
    fn undefined_bit_does_not_reach_the_entry_word() {
        assert_eq!(Interruption(0x8000_1202).to_entry().0, 0x8000_0202);
    }

    #[test]
    fn the_word_has_the_manual_s_bits() {
        for bit in 0..32 {
            let alone = Interruption(1 << bit);
            assert_eq!(u32::from(alone.vector()), if bit < 8 { 1 << bit } else { 0 }, "bit {bit}");
            assert_eq!(
                u32::from(alone.kind().0),
                if let 8..=10 = bit { 1 << (bit - 8) } else { 0 },
                "bit {bit}"
            );
            assert_eq!(alone.has_error_code(), bit == 11, "bit {bit}");
            assert_eq!(alone.is_nmi_unblocking(), bit == 12, "bit {bit}");
            assert_eq!(alone.is_valid(), bit == 31, "bit {bit}");
        }
        let all = Interruption(u32::MAX);
        assert_eq!((all.vector(), all.kind()), (255, InterruptionType::OTHER));
        assert!(all.has_error_code() && all.is_nmi_unblocking() && all.is_valid());
    }

    #[test]
    fn events_of_instructions_need_the_instruction_s_length() {
        let software: Vec<u8> = (0..8)
            .filter(|&kind| Interruption::new(3, InterruptionType(kind), false).is_software())
            .collect();
        assert_eq!(software, [4, 5, 6]);
    }
}
