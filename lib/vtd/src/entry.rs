//! Entries of the tables that a unit walks (VT-d, "Root Entry", "Context Entry", "Second-Stage Paging Entries"; of
//! scalable mode "Scalable-Mode Root Entry" and "Scalable-Mode Context Entry").

use bitflags::bitflags;
use x86::address::HostPhysAddr;
use x86::paging::{ADDRESS_MASK, PageSize};

use crate::DomainId;

/// Present, in the first word of a root or context entry.
const PRESENT: u64 = 1 << 0;

/// Bytes of a root entry, and of a context entry of legacy mode.
pub const ENTRY_BYTES: u64 = 16;

/// A root entry: the contexts of a bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RootEntry(pub [u64; 2]);

impl RootEntry {
    /// The entry that leads to this context table.
    #[must_use]
    pub const fn new(contexts: HostPhysAddr) -> Self {
        Self([contexts.get() | PRESENT, 0])
    }

    /// Where the contexts are; `None` where there are none.
    #[must_use]
    pub const fn contexts(self) -> Option<HostPhysAddr> {
        table(self.0[0])
    }

    /// The same words as scalable mode reads them: the contexts of devices 0 to 15, and of 16 to 31.
    #[must_use]
    pub const fn scalable_contexts(self) -> [Option<HostPhysAddr>; 2] {
        [table(self.0[0]), table(self.0[1])]
    }
}

/// What becomes of a device's requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Translation {
    /// They go through the tables; translated ones, of a device that keeps translations, are blocked.
    Untranslated,
    /// They go through the tables; translated ones pass.
    WithDeviceTlb,
    /// They pass.
    PassThrough,
    /// What the specification reserves: all are blocked.
    Reserved,
}

/// A context entry of legacy mode: what a device goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContextEntry(pub [u64; 2]);

impl ContextEntry {
    /// The entry by which a device's untranslated requests go through the second-level tables under `root`, of
    /// `levels`.
    #[must_use]
    pub const fn new(root: HostPhysAddr, levels: u8, domain: DomainId) -> Self {
        Self([root.get() | PRESENT, (levels - 2) as u64 | (domain.0 as u64) << 8])
    }

    /// P.
    #[must_use]
    pub const fn is_present(self) -> bool {
        self.0[0] & PRESENT != 0
    }

    /// FPD: faults of the device go unrecorded.
    #[must_use]
    pub const fn hides_faults(self) -> bool {
        self.0[0] >> 1 & 1 == 1
    }

    /// TT.
    #[must_use]
    pub const fn translation(self) -> Translation {
        match self.0[0] >> 2 & 3 {
            0 => Translation::Untranslated,
            1 => Translation::WithDeviceTlb,
            2 => Translation::PassThrough,
            _ => Translation::Reserved,
        }
    }

    /// The second-level tables.
    #[must_use]
    pub const fn root(self) -> HostPhysAddr {
        HostPhysAddr::new(self.0[0] & ADDRESS_MASK)
    }

    /// AW: their levels; `None` for what is reserved.
    #[must_use]
    pub const fn levels(self) -> Option<u8> {
        match self.0[1] & 7 {
            1 => Some(3),
            2 => Some(4),
            3 => Some(5),
            _ => None,
        }
    }

    /// DID.
    #[must_use]
    pub const fn domain(self) -> DomainId {
        DomainId((self.0[1] >> 8 & 0xffff) as u16)
    }
}

/// Bytes of a context entry of scalable mode.
pub const SCALABLE_CONTEXT_BYTES: u64 = 32;

/// A context entry of scalable mode, to be understood where firmware or a system before left one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScalableContextEntry(pub [u64; 4]);

impl ScalableContextEntry {
    /// P.
    #[must_use]
    pub const fn is_present(self) -> bool {
        self.0[0] & PRESENT != 0
    }

    /// DTE: translated requests pass.
    #[must_use]
    pub const fn has_device_tlb(self) -> bool {
        self.0[0] >> 2 & 1 == 1
    }

    /// PASIDE: requests may have a PASID.
    #[must_use]
    pub const fn has_pasids(self) -> bool {
        self.0[0] >> 3 & 1 == 1
    }

    /// PRE: page requests pass.
    #[must_use]
    pub const fn has_page_requests(self) -> bool {
        self.0[0] >> 4 & 1 == 1
    }

    /// PDTS: entries of the PASID directory.
    #[must_use]
    pub const fn pasid_directory_entries(self) -> u32 {
        1 << ((self.0[0] >> 9 & 7) + 7)
    }

    /// PASIDDIRPTR.
    #[must_use]
    pub const fn pasid_directory(self) -> HostPhysAddr {
        HostPhysAddr::new(self.0[0] & ADDRESS_MASK)
    }

    /// RID_PASID: the PASID of requests that have none.
    #[must_use]
    pub const fn default_pasid(self) -> u32 {
        (self.0[1] & 0xf_ffff) as u32
    }
}

bitflags! {
    /// An entry of a second-level table.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct SecondLevelEntry: u64 {
        /// R: devices may read.
        const READ = 1 << 0;
        /// W: devices may write.
        const WRITE = 1 << 1;
        /// PS: the entry of a level above 1 maps a page.
        const PAGE = 1 << 7;
        /// SNP: accesses snoop the processors' caches whatever the device says; reserved without snoop control.
        const SNOOP = 1 << 11;
        /// The address, and bits that this crate gives no name.
        const _ = !0;
    }
}

/// What an entry of a second-level table leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Nothing: devices do nothing here.
    Nothing,
    /// The table of the next level.
    Table(HostPhysAddr),
    /// A page.
    Page(HostPhysAddr),
}

impl SecondLevelEntry {
    /// Reading and writing.
    pub const OPEN: Self = Self::READ.union(Self::WRITE);

    /// The entry that links `table`, with every right.
    #[must_use]
    pub const fn table(table: HostPhysAddr) -> Self {
        Self::from_bits_retain(table.get()).union(Self::OPEN)
    }

    /// The entry that maps `page` to be read and written.
    #[must_use]
    pub const fn page(page: HostPhysAddr, size: PageSize, snoops: bool) -> Self {
        let mut entry = Self::from_bits_retain(page.get()).union(Self::OPEN);
        if !matches!(size, PageSize::Size4K) {
            entry = entry.union(Self::PAGE);
        }
        if snoops { entry.union(Self::SNOOP) } else { entry }
    }

    /// What this entry of a table of `level` leads to.
    #[must_use]
    pub const fn target(self, level: u8) -> Target {
        let address = HostPhysAddr::new(self.bits() & ADDRESS_MASK);
        if !self.intersects(Self::OPEN) {
            Target::Nothing
        } else if level == 1 || self.contains(Self::PAGE) {
            Target::Page(address)
        } else {
            Target::Table(address)
        }
    }
}

const fn table(word: u64) -> Option<HostPhysAddr> {
    if word & PRESENT == 0 { None } else { Some(HostPhysAddr::new(word & ADDRESS_MASK)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: HostPhysAddr = HostPhysAddr::new(0x12_3456_7000);

    #[test]
    fn root_entries_have_the_specifications_bits() {
        assert_eq!(RootEntry::new(AT).0, [0x12_3456_7001, 0]);
        assert_eq!(RootEntry::new(AT).contexts(), Some(AT));
        assert_eq!(RootEntry([AT.get(), 1]).contexts(), None);
        assert_eq!(
            RootEntry([AT.get(), 0x5001]).scalable_contexts(),
            [None, Some(HostPhysAddr::new(0x5000))]
        );
    }

    #[test]
    fn context_entries_have_the_specifications_bits() {
        let entry = ContextEntry::new(AT, 4, DomainId(0xabcd));
        assert_eq!(entry.0, [0x12_3456_7001, 0xab_cd02]);
        assert_eq!((entry.root(), entry.levels(), entry.domain()), (AT, Some(4), DomainId(0xabcd)));
        assert_eq!((entry.is_present(), entry.hides_faults()), (true, false));
        let kinds = [0, 1, 2, 3].map(|kind| ContextEntry([kind << 2, 0]).translation());
        let expected = [
            Translation::Untranslated,
            Translation::WithDeviceTlb,
            Translation::PassThrough,
            Translation::Reserved,
        ];
        assert_eq!(kinds, expected);
        let levels: Vec<_> = (0..8).map(|width| ContextEntry([1, width]).levels()).collect();
        assert_eq!(levels, [None, Some(3), Some(4), Some(5), None, None, None, None]);
        assert!(ContextEntry([2, 0]).hides_faults());
    }

    #[test]
    fn scalable_contexts_have_the_specifications_bits() {
        let entry = ScalableContextEntry([AT.get() | 3 << 9 | 0x15, 0x5_4321 | 1 << 20, 0, 0]);
        assert_eq!((entry.is_present(), entry.has_device_tlb(), entry.has_pasids()), (true, true, false));
        assert_eq!((entry.has_page_requests(), entry.pasid_directory_entries()), (true, 1 << 10));
        assert_eq!((entry.pasid_directory(), entry.default_pasid()), (AT, 0x5_4321));
        assert!(!ScalableContextEntry([!1, !0, !0, !0]).is_present());
    }

    #[test]
    fn each_flag_of_a_context_is_one_bit_of_its_first_word() {
        for bit in 0..64 {
            // The other words say the contrary of nearly everything.
            let legacy = ContextEntry([1 << bit, !0]);
            assert_eq!((legacy.is_present(), legacy.hides_faults()), (bit == 0, bit == 1), "bit {bit}");
            let scalable = ScalableContextEntry([1 << bit, !0, !0, !0]);
            let flags = [
                scalable.is_present(),
                scalable.has_device_tlb(),
                scalable.has_pasids(),
                scalable.has_page_requests(),
            ];
            assert_eq!(flags, [0, 2, 3, 4].map(|of_flag| bit == of_flag), "bit {bit}");
            let size = if (9..12).contains(&bit) { 1 << (bit - 9) } else { 0 };
            assert_eq!(scalable.pasid_directory_entries(), 1 << (7 + size), "bit {bit}");
            let pasid = ScalableContextEntry([!0, 1 << bit, !0, !0]).default_pasid();
            assert_eq!(pasid, if bit < 20 { 1 << bit } else { 0 }, "bit {bit}");
        }
    }

    #[test]
    fn second_level_entries_have_the_specifications_bits() {
        assert_eq!(SecondLevelEntry::table(AT).bits(), 0x12_3456_7003);
        assert_eq!(SecondLevelEntry::page(AT, PageSize::Size4K, false).bits(), 0x12_3456_7003);
        let large = HostPhysAddr::new(1 << 30);
        assert_eq!(SecondLevelEntry::page(large, PageSize::Size1G, true).bits(), 0x4000_0883);
        let target = |bits, level| SecondLevelEntry::from_bits_retain(bits).target(level);
        assert_eq!(target(AT.get() | 0x80, 2), Target::Nothing);
        assert_eq!(target(AT.get() | 2, 2), Target::Table(AT));
        assert_eq!(target(AT.get() | 1, 1), Target::Page(AT));
        assert_eq!(target(large.get() | 0x881, 3), Target::Page(large));
    }
}
