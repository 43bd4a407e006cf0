//! Segment registers as the processor caches them (SDM, "Segment Descriptors"; "Guest Register State").

use bitflags::bitflags;

/// The eight segment registers, in the order of the VMCS fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum SegmentRegister {
    /// Extra.
    Es = 0,
    /// Code.
    Cs,
    /// Stack.
    Ss,
    /// Data.
    Ds,
    /// FS.
    Fs,
    /// GS.
    Gs,
    /// Local descriptor table.
    Ldtr,
    /// Task.
    Tr,
}

impl SegmentRegister {
    /// All of them, in the order of the VMCS fields.
    pub const ALL: [Self; 8] =
        [Self::Es, Self::Cs, Self::Ss, Self::Ds, Self::Fs, Self::Gs, Self::Ldtr, Self::Tr];
}

/// Of a selector: the descriptor is in the local table (SDM, "Segment Selectors").
pub const SELECTOR_LOCAL: u16 = 1 << 2;

bitflags! {
    /// Type of a code or data segment (SDM, "Code- and Data-Segment Descriptor Types").
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct SegmentType: u8 {
        /// It has been loaded.
        const ACCESSED = 1 << 0;
        /// Code may be read, data written.
        const READABLE_OR_WRITABLE = 1 << 1;
        /// Code of any privilege level may enter; data extends downwards.
        const CONFORMING_OR_DOWN = 1 << 2;
        /// Code, not data.
        const CODE = 1 << 3;
    }

    /// Type of a task-state segment (SDM, "System Descriptor Types").
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct TssType: u8 {
        /// The task runs, or is left for another that it called.
        const BUSY = 1 << 1;
        /// 32-bit or 64-bit, not 16-bit.
        const WIDE = 1 << 3;
        /// What makes it a task-state segment.
        const _ = !0;
    }
}

bitflags! {
    /// Access rights in the format of the VMCS (SDM, "Format of Access Rights").
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct AccessRights: u32 {
        /// Code or data, not system.
        const S = 1 << 4;
        /// Present.
        const P = 1 << 7;
        /// Available to software.
        const AVL = 1 << 12;
        /// 64-bit code.
        const L = 1 << 13;
        /// Default operation size: 32-bit.
        const DB = 1 << 14;
        /// Limit counted in pages.
        const G = 1 << 15;
        /// The register is unusable.
        const UNUSABLE = 1 << 16;
        /// Type and privilege level are numbers, all of whose values are kept.
        const _ = !0;
    }
}

impl AccessRights {
    /// Returns the type of the segment, four bits.
    #[must_use]
    pub const fn kind(self) -> u8 {
        (self.bits() & 0xf) as u8
    }

    /// Returns the same, where it is code or data.
    #[must_use]
    pub const fn segment_type(self) -> SegmentType {
        SegmentType::from_bits_truncate(self.kind())
    }

    /// Returns the same, where it is a task-state segment.
    #[must_use]
    pub const fn tss_type(self) -> TssType {
        TssType::from_bits_retain(self.kind())
    }

    /// Descriptor privilege level.
    #[must_use]
    pub const fn dpl(self) -> u8 {
        (self.bits() >> 5 & 3) as u8
    }
}

/// One segment register, visible and hidden part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Selector.
    pub selector: u16,
    /// Base address.
    pub base: u64,
    /// Limit in bytes, already scaled by granularity.
    pub limit: u32,
    /// Access rights.
    pub rights: AccessRights,
}

impl Segment {
    /// Returns a real-mode segment at `selector` << 4, with the rights that real mode needs under VMX.
    #[must_use]
    pub const fn real_mode(selector: u16, rights: u32) -> Self {
        Self {
            selector,
            base: (selector as u64) << 4,
            limit: 0xffff,
            rights: AccessRights::from_bits_retain(rights),
        }
    }
}

/// GDTR or IDTR.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DescriptorTable {
    /// Base address.
    pub base: u64,
    /// Limit in bytes.
    pub limit: u16,
}

#[cfg(test)]
mod tests {
    use super::{AccessRights, Segment, SegmentRegister};

    #[test]
    fn access_rights_have_the_manual_s_bits() {
        for bit in 0..32 {
            let rights = AccessRights::from_bits_retain(1 << bit);
            let (kind, dpl) =
                (if bit < 4 { 1 << bit } else { 0 }, if let 5..=6 = bit { 1 << (bit - 5) } else { 0 });
            assert_eq!((rights.kind(), rights.dpl()), (kind, dpl), "bit {bit}");
        }
        let all = AccessRights::from_bits_retain(u32::MAX);
        assert_eq!((all.kind(), all.dpl()), (15, 3));
    }

    #[test]
    fn a_real_mode_segment_lies_at_16_times_its_selector() {
        let segment = Segment::real_mode(0xf123, 0x93);
        assert_eq!((segment.selector, segment.base, segment.limit), (0xf123, 0xf_1230, 0xffff));
        assert_eq!(segment.rights.bits(), 0x93);
    }

    #[test]
    fn registers_are_in_the_order_of_their_fields() {
        assert!(SegmentRegister::ALL.iter().zip(0..).all(|(&register, index)| register as u8 == index));
    }
}
