//! What a unit is told by its queue: descriptors of 128 bits (VT-d, "Queued Invalidation Interface").

use x86::address::HostPhysAddr;

use crate::command::{Contexts, Translations};

/// Bytes of a descriptor.
pub const DESCRIPTOR_BYTES: u64 = 16;

/// A descriptor: its low and its high half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor(pub [u64; 2]);

/// Types.
const CONTEXT_CACHE: u64 = 1;
const IOTLB: u64 = 2;
const INTERRUPT_ENTRY_CACHE: u64 = 4;
const WAIT: u64 = 5;

/// IOTLB: wait for writes, and for reads, on their way.
const DRAIN_WRITES: u64 = 1 << 6;
const DRAIN_READS: u64 = 1 << 7;
/// Wait: write the status, and do nothing behind before all before is done.
const STATUS_WRITE: u64 = 1 << 5;
const FENCE: u64 = 1 << 6;

impl Descriptor {
    /// "Context-cache Invalidate Descriptor".
    #[must_use]
    pub fn contexts(which: Contexts) -> Self {
        let low = match which {
            Contexts::All => 1 << 4,
            Contexts::Domain(domain) => 2 << 4 | u64::from(domain.0) << 16,
            Contexts::Device(domain, source) => {
                3 << 4 | u64::from(domain.0) << 16 | u64::from(source.0) << 32
            }
        };
        Self([CONTEXT_CACHE | low, 0])
    }

    /// "IOTLB Invalidate Descriptor", behind what is on its way where the unit can wait for that.
    #[must_use]
    pub fn iotlb(which: Translations, drains_reads: bool, drains_writes: bool) -> Self {
        let low = match which {
            Translations::All => 1 << 4,
            Translations::Domain(domain) => 2 << 4 | u64::from(domain.0) << 16,
            Translations::Pages { domain, .. } => 3 << 4 | u64::from(domain.0) << 16,
        };
        let reads = if drains_reads { DRAIN_READS } else { 0 };
        let writes = if drains_writes { DRAIN_WRITES } else { 0 };
        Self([IOTLB | low | reads | writes, which.address()])
    }

    /// "Interrupt Entry Cache Invalidate Descriptor" for all entries.
    #[must_use]
    pub const fn interrupt_entries() -> Self {
        Self([INTERRUPT_ENTRY_CACHE, 0])
    }

    /// "Invalidation Wait Descriptor": writes `status` to `address`, of 4 bytes, once all before it is done.
    #[must_use]
    pub const fn wait(address: HostPhysAddr, status: u32) -> Self {
        Self([WAIT | STATUS_WRITE | FENCE | (status as u64) << 32, address.get()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DomainId, SourceId};

    #[test]
    fn descriptors_have_the_specifications_bits() {
        let domain = DomainId(0x1234);
        assert_eq!(Descriptor::contexts(Contexts::All).0, [0x11, 0]);
        assert_eq!(Descriptor::contexts(Contexts::Domain(domain)).0, [0x1234_0021, 0]);
        let device = Contexts::Device(domain, SourceId(0x5678));
        assert_eq!(Descriptor::contexts(device).0, [0x5678_1234_0031, 0]);
        assert_eq!(Descriptor::iotlb(Translations::All, false, false).0, [0x12, 0]);
        assert_eq!(Descriptor::iotlb(Translations::Domain(domain), true, false).0, [0x1234_00a2, 0]);
        let pages = Translations::Pages { domain, address: 0xabc0_0000, mask: 9 };
        assert_eq!(Descriptor::iotlb(pages, false, true).0, [0x1234_0072, 0xabc0_0009]);
        assert_eq!(Descriptor::interrupt_entries().0, [4, 0]);
        assert_eq!(Descriptor::wait(HostPhysAddr::new(0x4000), 7).0, [0x7_0000_0065, 0x4000]);
    }
}
