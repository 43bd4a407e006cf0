//! VM-exit instruction information of VMX instructions (SDM, "Information for VM Exits Due to Instruction
//! Execution").

use crate::segment::SegmentRegister;

/// The VM-exit instruction-information field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InstructionInformation(pub u32);

impl InstructionInformation {
    #[expect(clippy::cast_possible_truncation, reason = "fields are of four bits at most")]
    const fn bits(self, first: u32, count: u32) -> u8 {
        (self.0 >> first & ((1 << count) - 1)) as u8
    }

    /// The index register is shifted by so many bits.
    #[must_use]
    pub const fn scaling(self) -> u8 {
        self.bits(0, 2)
    }

    /// Returns the size of addresses in bits.
    #[must_use]
    pub const fn address_bits(self) -> u8 {
        match self.bits(7, 3) {
            0 => 16,
            1 => 32,
            _ => 64,
        }
    }

    /// VMREAD and VMWRITE: the operand is [`Self::register1`] rather than memory.
    #[must_use]
    pub const fn is_register(self) -> bool {
        self.bits(10, 1) == 1
    }

    /// Returns the encoding of the first register operand.
    #[must_use]
    pub const fn register1(self) -> u8 {
        self.bits(3, 4)
    }

    /// Segment of the memory operand.
    #[must_use]
    pub fn segment(self) -> SegmentRegister {
        SegmentRegister::ALL[usize::from(self.bits(15, 3).min(5))]
    }

    /// Returns the encoding of the index register.
    #[must_use]
    pub const fn index(self) -> Option<u8> {
        if self.bits(22, 1) == 0 { Some(self.bits(18, 4)) } else { None }
    }

    /// Returns the encoding of the base register.
    #[must_use]
    pub const fn base(self) -> Option<u8> {
        if self.bits(27, 1) == 0 { Some(self.bits(23, 4)) } else { None }
    }

    /// Returns the encoding of the second register operand.
    #[must_use]
    pub const fn register2(self) -> u8 {
        self.bits(28, 4)
    }
}

#[cfg(test)]
mod tests {
    use super::InstructionInformation;
    use crate::segment::SegmentRegister;

    #[test]
    fn every_part_has_its_bits() {
        // [gs: rbx + r9 * 4], 64-bit addresses, second register r10, no register operand.
        let information = InstructionInformation(2 | 2 << 7 | 5 << 15 | 9 << 18 | 3 << 23 | 10 << 28);
        assert_eq!((information.scaling(), information.address_bits()), (2, 64));
        assert_eq!(information.segment(), SegmentRegister::Gs);
        assert_eq!((information.index(), information.base()), (Some(9), Some(3)));
        assert_eq!((information.register2(), information.is_register()), (10, false));
        let bare = InstructionInformation(1 << 22 | 1 << 27 | 1 << 10 | 7 << 3);
        assert_eq!((bare.index(), bare.base(), bare.address_bits()), (None, None, 16));
        assert!(bare.is_register() && bare.register1() == 7);
    }

    #[test]
    fn each_bit_alone_is_in_its_part_and_no_other() {
        for bit in 0..32 {
            let alone = InstructionInformation(1 << bit);
            let of = |first: u32, count| {
                if (first..first + count).contains(&bit) { 1 << (bit - first) } else { 0 }
            };
            assert_eq!(alone.scaling(), of(0, 2), "bit {bit}");
            assert_eq!(alone.register1(), of(3, 4), "bit {bit}");
            let address_bits = match bit {
                7 => 32,
                8 | 9 => 64,
                _ => 16,
            };
            assert_eq!(alone.address_bits(), address_bits, "bit {bit}");
            assert_eq!(alone.is_register(), bit == 10, "bit {bit}");
            assert_eq!(alone.segment() as u8, of(15, 3), "bit {bit}");
            assert_eq!(alone.index(), (bit != 22).then_some(of(18, 4)), "bit {bit}");
            assert_eq!(alone.base(), (bit != 27).then_some(of(23, 4)), "bit {bit}");
            assert_eq!(alone.register2(), of(28, 4), "bit {bit}");
        }
        assert_eq!(InstructionInformation(7 << 15).segment(), SegmentRegister::Gs, "of six");
    }
}
