//! What the hypapp's logic needs of the machine, as traits: the process that calls, and pages of memory.

/// Bytes of a page.
pub const PAGE: u64 = 4096;

/// The process cannot access the memory that was named, or not in that way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inaccessible;

/// Which kind of entry maps a page (SDM, "Paging").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeafKind {
    /// A page of 4 KiB, by an entry of 8 bytes.
    Page64,
    /// 2 MiB, by an entry of 8 bytes.
    Large64,
    /// A page of 4 KiB, by an entry of 4 bytes.
    Page32,
    /// 4 MiB, by an entry of 4 bytes.
    Large32,
}

/// The entry of a process's page tables that maps a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Physical address of the entry.
    pub at: u64,
    /// What it is but for rights and flags: the address of what it maps, and bit 0.
    pub value: u64,
    /// Of which kind it is.
    pub kind: LeafKind,
}

impl Leaf {
    /// Returns the physical address of the table that the entry is in.
    #[must_use]
    pub const fn table(self) -> u64 {
        self.at & !(PAGE - 1)
    }

    /// Returns the physical address of what it maps.
    #[must_use]
    pub const fn base(self) -> u64 {
        self.value & !(PAGE - 1)
    }

    /// Returns the physical addresses of the pages that it maps.
    pub fn pages(self) -> impl Iterator<Item = u64> {
        let pages = match self.kind {
            LeafKind::Page64 | LeafKind::Page32 => 1,
            LeafKind::Large64 => 512,
            LeafKind::Large32 => 1024,
        };
        (0..pages).map(move |index| self.base() + index * PAGE)
    }

    /// Returns the number of its bytes.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self.kind {
            LeafKind::Page64 | LeafKind::Large64 => 8,
            LeafKind::Page32 | LeafKind::Large32 => 4,
        }
    }

    /// Returns whether `entry`, which is there now, maps the same.
    #[must_use]
    pub const fn is_kept_by(self, entry: u64) -> bool {
        let address = match self.kind {
            LeafKind::Page64 => 0xf_ffff_ffff_f000,
            LeafKind::Large64 => 0xf_ffff_ffe0_0000,
            LeafKind::Page32 => 0xffff_f000,
            // Of more than 32 bits of address, bits 20:13 are the upper ones.
            LeafKind::Large32 => 0xffff_e000,
        };
        entry & (address | 1) == self.value
    }
}

/// What a page is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// To be executed and read.
    Execute,
    /// To be written and read.
    Write,
    /// To be executed, written and read.
    WriteAndExecute,
}

/// A process, by its own page tables and with its own rights.
pub trait Process {
    /// Copies `bytes.len()` bytes at the linear address `address` out.
    ///
    /// # Errors
    ///
    /// [`Inaccessible`].
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), Inaccessible>;

    /// Copies `bytes` to the linear address `address`.
    ///
    /// # Errors
    ///
    /// [`Inaccessible`]; nothing is written then.
    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), Inaccessible>;

    /// Returns the physical address of the page at the linear address `address`, which the process may put to `wanted`.
    ///
    /// # Errors
    ///
    /// [`Inaccessible`].
    fn page(&self, address: u64, wanted: Use) -> Result<u64, Inaccessible>;

    /// Finds the same as the tables are now, and the entry that maps it, where its table can be watched.
    ///
    /// # Errors
    ///
    /// [`Inaccessible`].
    fn find(&self, address: u64, wanted: Use) -> Result<(u64, Option<Leaf>), Inaccessible>;
}

/// What the rest of the guest may do with a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cover {
    /// Nothing: reads give zeros, and all else comes to the hypapp.
    Hidden,
    /// Reads and fetches.
    ReadOnly,
    /// Reads and writes; fetches come to the hypapp.
    NoFetch,
    /// Everything.
    Open,
    /// What it may already, but somebody is told of its next write.
    Watched,
}

/// Pages of the guest's memory, by physical address.
pub trait Pages {
    /// Returns whether the page is ordinary memory of the guest's.
    fn is_memory(&self, page: u64) -> bool;

    /// Covers pages for all CPUs, from when it returns on.
    ///
    /// # Errors
    ///
    /// [`Inaccessible`] where there is no room for one more; some pages may be covered then.
    fn cover(&self, pages: &mut dyn Iterator<Item = (u64, Cover)>) -> Result<(), Inaccessible>;

    /// No longer has anybody told of writes to the page, which is [`Cover::Watched`].
    fn unwatch(&self, page: u64);

    /// Copies bytes out of one page, covered or not.
    fn read(&self, address: u64, bytes: &mut [u8]);

    /// Copies bytes into one page, covered or not.
    fn write(&self, address: u64, bytes: &[u8]);
}

#[cfg(test)]
mod tests {
    use super::{Leaf, LeafKind};

    #[test]
    fn an_entry_maps_the_same_whatever_its_rights_and_flags() {
        for (kind, value, flags, moved) in [
            (LeafKind::Page64, 0x12_3456_7001, 0x8000_0000_0000_0e66, 0x8000),
            (LeafKind::Large64, 0x12_3460_0001, 0x8000_0000_0000_1ee6, 0x80_0000),
            (LeafKind::Page32, 0x1234_5001, 0xe66, 0x8000_0000),
            (LeafKind::Large32, 0x1240_0001, 0x1ee6, 0x80_0000),
        ] {
            let leaf = Leaf { at: 0x5008, value, kind };
            assert!(leaf.is_kept_by(value) && leaf.is_kept_by(value | flags), "{kind:?}");
            assert!(!leaf.is_kept_by(value | flags | moved) && !leaf.is_kept_by(value & !1), "{kind:?}");
            assert!(!leaf.is_kept_by(0) && leaf.table() == 0x5000, "{kind:?}");
            assert_eq!((leaf.pages().next(), leaf.base()), (Some(value & !1), value & !1));
        }
        // The upper bits of a page's address above 4 GiB.
        assert!(!Leaf { at: 0, value: 0x1240_0001, kind: LeafKind::Large32 }.is_kept_by(0x1240_2001));
    }
}
