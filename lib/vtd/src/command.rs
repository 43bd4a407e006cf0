//! What a unit is told by registers (VT-d, "Global Command Register", "Context Command Register", "IOTLB Invalidate
//! Register").

use bitflags::bitflags;

use crate::{DomainId, SourceId};

bitflags! {
    /// The global command register, and the global status register, which has each answer at the command's place.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Global: u32 {
        /// CFI: interrupts in the old format pass.
        const COMPATIBILITY_INTERRUPTS = 1 << 23;
        /// SIRTP: take the interrupt remapping table's address.
        const SET_INTERRUPT_TABLE = 1 << 24;
        /// IRE: remap interrupts.
        const INTERRUPT_REMAPPING = 1 << 25;
        /// QIE: invalidate by the queue.
        const QUEUED_INVALIDATION = 1 << 26;
        /// WBF: flush write buffers. The status is set as long as it takes.
        const WRITE_BUFFER_FLUSH = 1 << 27;
        /// EAFL: log faults to memory.
        const ADVANCED_FAULT_LOGGING = 1 << 28;
        /// SFL: take the fault log's address.
        const SET_FAULT_LOG = 1 << 29;
        /// SRTP: take the root table's address.
        const SET_ROOT_TABLE = 1 << 30;
        /// TE: translate.
        const TRANSLATION = 1 << 31;
        /// What is reserved.
        const _ = !0;
    }
}

impl Global {
    /// Commands that are done once: a write of the register must not repeat them because the status still tells of
    /// the last.
    pub const ONE_SHOT: Self = Self::SET_ROOT_TABLE
        .union(Self::SET_FAULT_LOG)
        .union(Self::WRITE_BUFFER_FLUSH)
        .union(Self::SET_INTERRUPT_TABLE);
}

/// The kind of root table, in bits 11 and 10 of its address (VT-d, "Root Table Address Register").
pub const ROOT_TABLE_MODE: u64 = 3 << 10;

/// Which contexts are forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contexts {
    /// All.
    All,
    /// Those of a domain.
    Domain(DomainId),
    /// That of a device, which had this domain.
    Device(DomainId, SourceId),
}

/// Which translations are forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Translations {
    /// All.
    All,
    /// Those of a domain.
    Domain(DomainId),
    /// Those of a domain for two to the power of `mask` pages from `address` on, which is a multiple of so many.
    Pages {
        /// The domain.
        domain: DomainId,
        /// The first page.
        address: u64,
        /// The power.
        mask: u8,
    },
}

bitflags! {
    /// The context command register.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct ContextCommand: u64 {
        /// ICC: do it; clear once it is done.
        const INVALIDATE = 1 << 63;
        /// CAIG: how much was invalidated at least; 0 where the command was refused.
        const DONE = 3 << 59;
        /// Fields.
        const _ = !0;
    }
}

impl From<Contexts> for ContextCommand {
    fn from(which: Contexts) -> Self {
        let request = match which {
            Contexts::All => 1 << 61,
            Contexts::Domain(domain) => 2 << 61 | u64::from(domain.0),
            Contexts::Device(domain, source) => 3 << 61 | u64::from(source.0) << 16 | u64::from(domain.0),
        };
        Self::from_bits_retain(request) | Self::INVALIDATE
    }
}

bitflags! {
    /// The IOTLB invalidate register.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct IotlbCommand: u64 {
        /// IVT: do it; clear once it is done.
        const INVALIDATE = 1 << 63;
        /// IAIG: how much was invalidated at least; 0 where the command was refused.
        const DONE = 3 << 57;
        /// DR: wait for reads on their way.
        const DRAIN_READS = 1 << 49;
        /// DW: wait for writes on their way.
        const DRAIN_WRITES = 1 << 48;
        /// Fields.
        const _ = !0;
    }
}

impl From<Translations> for IotlbCommand {
    fn from(which: Translations) -> Self {
        let request = match which {
            Translations::All => 1 << 60,
            Translations::Domain(domain) => 2 << 60 | u64::from(domain.0) << 32,
            Translations::Pages { domain, .. } => 3 << 60 | u64::from(domain.0) << 32,
        };
        Self::from_bits_retain(request) | Self::INVALIDATE
    }
}

impl Translations {
    /// What the address register gets before the command; tables above the pages are forgotten too.
    #[must_use]
    pub const fn address(self) -> u64 {
        match self {
            Self::All | Self::Domain(_) => 0,
            Self::Pages { address, mask, .. } => address | mask as u64,
        }
    }
}

bitflags! {
    /// The protected memory enable register (VT-d, "Protected Memory Enable Register").
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct ProtectedEnable: u32 {
        /// PRS: the regions are protected.
        const STATUS = 1 << 0;
        /// EPM: protect them.
        const ENABLE = 1 << 31;
        /// What is reserved.
        const _ = !0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_shot_commands_are_those_that_the_specification_masks() {
        assert_eq!(!Global::ONE_SHOT.bits(), 0x96ff_ffff);
    }

    #[test]
    fn commands_have_the_specifications_bits() {
        let context = |which: Contexts| ContextCommand::from(which).bits();
        assert_eq!(context(Contexts::All), 0xa000_0000_0000_0000);
        assert_eq!(context(Contexts::Domain(DomainId(0x1234))), 0xc000_0000_0000_1234);
        assert_eq!(context(Contexts::Device(DomainId(0x1234), SourceId(0x5678))), 0xe000_0000_5678_1234);
        let iotlb = |which: Translations| (IotlbCommand::from(which).bits(), which.address());
        assert_eq!(iotlb(Translations::All), (0x9000_0000_0000_0000, 0));
        assert_eq!(iotlb(Translations::Domain(DomainId(0x1234))), (0xa000_1234_0000_0000, 0));
        let pages = Translations::Pages { domain: DomainId(0x1234), address: 0x5678_a000, mask: 1 };
        assert_eq!(iotlb(pages), (0xb000_1234_0000_0000, 0x5678_a001));
        assert_eq!((IotlbCommand::DRAIN_READS.bits(), IotlbCommand::DRAIN_WRITES.bits()), (1 << 49, 1 << 48));
    }
}
