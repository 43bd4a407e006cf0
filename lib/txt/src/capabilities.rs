//! What a SINIT offers and a measured launched environment wants (TXT guide, "SINIT/MLE Capabilities Field Bit
//! Definitions").

use bitflags::bitflags;

bitflags! {
    /// The field of the same format in an ACM's information table, an MLE's header and OsSinitData.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Capabilities: u32 {
        /// The other processors are woken by GETSEC\[WAKEUP\].
        const RLP_WAKE_GETSEC = 1 << 0;
        /// The other processors are woken by a store to an address that they watch.
        const RLP_WAKE_MONITOR = 1 << 1;
        /// ECX holds the page directory's address when the MLE is entered.
        const ECX_PAGE_TABLE = 1 << 2;
        /// An SMI transfer monitor is supported.
        const STM = 1 << 3;
        /// PCR mapping: the legacy one is not supported.
        const PCR_MAP_NO_LEGACY = 1 << 4;
        /// PCR mapping: details in PCR 17, authorities in PCR 18.
        const PCR_MAP_DETAILS_AUTHORITIES = 1 << 5;
        /// Kind of platform: of a client.
        const PLATFORM_CLIENT = 1 << 6;
        /// Kind of platform: of a server.
        const PLATFORM_SERVER = 1 << 7;
        /// Protected regions may lie as high as the processor's physical addresses go.
        const MAX_PHYSICAL_ADDRESS = 1 << 8;
        /// The event log has the TCG's crypto-agile format.
        const TCG_EVENT_LOG = 1 << 9;
        /// Converged Boot Guard and TXT.
        const CBNT = 1 << 10;
        /// DMA is kept out by TXT protected regions rather than by those of VT-d.
        const TPR = 1 << 14;
        /// What is reserved.
        const _ = !0;
    }
}

impl Capabilities {
    /// The ways to wake the other processors.
    pub const WAKES: Self = Self::RLP_WAKE_GETSEC.union(Self::RLP_WAKE_MONITOR);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guide_s_bits() {
        // The two that Debian's modules of the fifth and the seventh generation have.
        let fifth = Capabilities::from_bits_retain(0x16e);
        assert!(
            !fifth.contains(Capabilities::RLP_WAKE_GETSEC) && !fifth.contains(Capabilities::TCG_EVENT_LOG)
        );
        assert_eq!(fifth & Capabilities::WAKES, Capabilities::RLP_WAKE_MONITOR);
        let seventh = Capabilities::from_bits_retain(0x36e);
        assert_eq!(seventh - fifth, Capabilities::TCG_EVENT_LOG);
        assert_eq!(Capabilities::TPR.bits() | Capabilities::CBNT.bits(), 0x4400);
    }
}
