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
    /// Type of the segment, four bits.
    #[must_use]
    pub const fn kind(self) -> u8 {
        (self.bits() & 0xf) as u8
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
    /// A real-mode segment at `selector` << 4, with the rights that real mode needs under VMX.
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
