//! The local APIC's registers (SDM, "Advanced Programmable Interrupt Controller (APIC)").

use bitflags::bitflags;

bitflags! {
    /// IA32_APIC_BASE (SDM, "Local APIC Status and Location").
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct ApicBase: u64 {
        /// This is the bootstrap processor.
        const BSP = 1 << 8;
        /// x2APIC mode.
        const X2APIC = 1 << 10;
        /// The APIC is there.
        const ENABLE = 1 << 11;
        /// The address, and bits that are reserved.
        const _ = !0;
    }
}

impl ApicBase {
    /// The bits that say the mode.
    pub const MODE: Self = Self::X2APIC.union(Self::ENABLE);

    /// Returns the part of `self` that says the mode.
    #[must_use]
    pub const fn mode(self) -> Self {
        self.intersection(Self::MODE)
    }
}

/// Offsets of registers in the page, in bytes; in x2APIC mode each is an MSR, a sixteenth of the offset behind
/// [`X2APIC_FIRST`](crate::msr::Msr::X2APIC_FIRST).
pub mod offset {
    /// Local APIC ID.
    pub const ID: u16 = 0x20;
    /// Version.
    pub const VERSION: u16 = 0x30;
    /// Task priority.
    pub const TASK_PRIORITY: u16 = 0x80;
    /// End of interrupt.
    pub const END_OF_INTERRUPT: u16 = 0xb0;
    /// Logical destination.
    pub const LOGICAL_DESTINATION: u16 = 0xd0;
    /// Destination format.
    pub const DESTINATION_FORMAT: u16 = 0xe0;
    /// Spurious-interrupt vector.
    pub const SPURIOUS: u16 = 0xf0;
    /// In service, 32 vectors each.
    pub const IN_SERVICE: [u16; 8] = [0x100, 0x110, 0x120, 0x130, 0x140, 0x150, 0x160, 0x170];
    /// Error status.
    pub const ERROR_STATUS: u16 = 0x280;
    /// Corrected machine checks, in the local vector table.
    pub const LVT_CMCI: u16 = 0x2f0;
    /// Interrupt command, lower half.
    pub const COMMAND_LOW: u16 = 0x300;
    /// Interrupt command, upper half.
    pub const COMMAND_HIGH: u16 = 0x310;
    /// The timer, in the local vector table.
    pub const LVT_TIMER: u16 = 0x320;
    /// The thermal sensor, in the local vector table.
    pub const LVT_THERMAL: u16 = 0x330;
    /// Performance counters, in the local vector table.
    pub const LVT_COUNTERS: u16 = 0x340;
    /// Pin LINT0, in the local vector table.
    pub const LVT_LINT0: u16 = 0x350;
    /// Pin LINT1, in the local vector table.
    pub const LVT_LINT1: u16 = 0x360;
    /// Errors of the APIC, in the local vector table.
    pub const LVT_ERROR: u16 = 0x370;
    /// The timer's initial count.
    pub const TIMER_INITIAL: u16 = 0x380;
    /// The timer's divisor.
    pub const TIMER_DIVIDE: u16 = 0x3e0;
}

bitflags! {
    /// An entry of the local vector table, but for its vector.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct LocalVector: u32 {
        /// Delivery mode: NMI.
        const NMI = 4 << 8;
        /// Delivery mode: an external interrupt controller.
        const EXTERNAL = 7 << 8;
        /// Masked.
        const MASKED = 1 << 16;
        /// Vector and status.
        const _ = !0;
    }
}

impl LocalVector {
    /// Returns the delivery mode, as [`Self::NMI`] and [`Self::EXTERNAL`] have it.
    #[must_use]
    pub const fn delivery_mode(self) -> Self {
        self.intersection(Self::EXTERNAL)
    }
}

bitflags! {
    /// The spurious-interrupt register, but for its vector.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Spurious: u32 {
        /// The APIC is enabled by software.
        const ENABLED = 1 << 8;
        /// The end of a level-triggered interrupt is not told to the I/O APICs.
        const EOI_SUPPRESSION = 1 << 12;
        /// The vector.
        const _ = !0;
    }
}

bitflags! {
    /// The version register.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Version: u32 {
        /// [`Spurious::EOI_SUPPRESSION`] is there.
        const HAS_EOI_SUPPRESSION = 1 << 24;
        /// Version and number of entries.
        const _ = !0;
    }
}

/// Interrupt command: it has not been accepted yet.
pub const DELIVERY_PENDING: u32 = 1 << 12;

#[cfg(test)]
mod tests {
    use super::{ApicBase, LocalVector, Spurious, Version, offset};

    #[test]
    fn the_manual_s_bits() {
        assert_eq!((ApicBase::BSP.bits(), ApicBase::MODE.bits()), (0x100, 0xc00));
        assert_eq!(ApicBase::from_bits_retain(0xfee0_0900).mode(), ApicBase::ENABLE);
        assert_eq!((LocalVector::NMI.bits(), LocalVector::EXTERNAL.bits()), (0x400, 0x700));
        assert_eq!(LocalVector::from_bits_retain(0x1_0431).delivery_mode(), LocalVector::NMI);
        assert_eq!((Spurious::ENABLED.bits(), Spurious::EOI_SUPPRESSION.bits()), (0x100, 0x1000));
        assert_eq!(Version::HAS_EOI_SUPPRESSION.bits(), 0x100_0000);
    }

    #[test]
    fn registers_are_16_bytes_apart() {
        let table = [offset::LVT_TIMER, offset::LVT_THERMAL, offset::LVT_COUNTERS, offset::LVT_LINT0];
        let table = table.into_iter().chain([offset::LVT_LINT1, offset::LVT_ERROR, offset::TIMER_INITIAL]);
        assert!(table.zip((0x320..).step_by(16)).all(|(register, expected)| register == expected));
        assert!(offset::IN_SERVICE.into_iter().zip((0x100..).step_by(16)).all(|(one, other)| one == other));
    }
}
