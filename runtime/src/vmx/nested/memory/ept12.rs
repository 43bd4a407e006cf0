//! The walk of L1's extended page tables, in software (SDM, "EPT Translation Mechanism").
//!
//! L1's tables lie in memory that all of L1's processors write: each entry is read once, as a whole, and what
//! was read is what is used. Memory that is not L1's answers as where nothing is, with all ones: an entry read
//! there is misconfigured. A flag set there is lost, as in a ROM.

use crate::memory::guest::GuestMemory;
use x86::address::GuestPhysAddr;
use x86::paging::{PageSize, Rights, index};
use x86::vmx::ept::EptPointer;
use x86::vmx::ept_entry::{EptEntry, EptFeatures};

const TOP_LEVEL: u8 = 4;
/// Address bits that four levels translate.
const TABLE_BITS: u32 = 48;
/// What a read of no memory gives.
const ALL_ONES: u64 = !0;
/// Entries of the lowest level that are read at a time: one cache line of them.
pub(crate) const LINE: usize = 8;
const LINE_BYTES: u64 = 8 * LINE as u64;
/// Walks that another processor may spoil by changing an entry meanwhile.
const ATTEMPTS: usize = 8;
/// Entries of a page-modification log.
const LOG_ENTRIES: u16 = 512;

/// L1's tables and its processor.
#[derive(Debug)]
pub(crate) struct Ept12<'a, M: ?Sized> {
    /// L1's memory.
    pub(crate) memory: &'a M,
    /// From VMCS12, checked at VM entry.
    pub(crate) pointer: EptPointer,
    /// What L1's processor can do.
    pub(crate) features: &'a EptFeatures,
}

/// Why L1's tables translate no access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// They do not allow it; the rights that all entries together give.
    Violation(Rights),
    /// An entry is misconfigured.
    Misconfiguration,
    /// The page-modification log has no room.
    LogFull,
    /// Other processors changed the entries as often as they were read: to be tried again.
    Changed,
}

/// L1's page-modification log (SDM, "Page-Modification Logging").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PageModificationLog {
    /// Its page in L1's memory.
    pub(crate) page: GuestPhysAddr,
    /// PML index, of VMCS12.
    pub(crate) index: u16,
}

/// A translation by L1's tables: the entries that the walk used, the last of them a leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Translation {
    entries: [(GuestPhysAddr, EptEntry); TOP_LEVEL as usize],
    length: usize,
    level: u8,
    /// Rights of all entries but the leaf.
    above: Rights,
    has_flags: bool,
    /// The line of entries of the lowest level that the leaf is one of.
    line: [u64; LINE],
}

impl Translation {
    /// Nothing, for [`Ept12::translate`] to fill.
    pub(crate) const EMPTY: Self = Self {
        entries: [(GuestPhysAddr::new(0), EptEntry(0)); TOP_LEVEL as usize],
        length: 0,
        level: TOP_LEVEL,
        above: Rights::all(),
        has_flags: false,
        line: [0; LINE],
    };

    /// Returns the entry that maps L1's page, flags set.
    pub(crate) const fn leaf(&self) -> EptEntry {
        self.entries[self.length - 1].1
    }

    /// Returns the size of L1's page.
    pub(crate) const fn size(&self) -> PageSize {
        match self.level {
            1 => PageSize::Size4K,
            2 => PageSize::Size2M,
            _ => PageSize::Size1G,
        }
    }

    /// Returns where L1's page begins in its memory.
    pub(crate) const fn page(&self) -> GuestPhysAddr {
        GuestPhysAddr::new(self.leaf().address(self.size()))
    }

    /// Returns what translations cached from L1's entry may allow: no writes until L1's dirty flag is set.
    pub(crate) fn rights(&self) -> Rights {
        self.rights_by(self.leaf())
    }

    /// Returns the entry at `position` of the line, and what translations cached from it may allow; `None` where it
    /// does not say the same of its page as the leaf, or may not be cached unasked.
    pub(crate) fn neighbour(&self, position: usize, features: &EptFeatures) -> Option<(EptEntry, Rights)> {
        let entry = EptEntry(self.line[position]);
        let own = features.address_mask() | EptEntry::ACCESSED | EptEntry::DIRTY;
        let is_alike = (entry.0 ^ self.leaf().0) & !own == 0;
        (is_alike && (!self.has_flags || entry.is_accessed())).then(|| (entry, self.rights_by(entry)))
    }

    fn rights_by(&self, leaf: EptEntry) -> Rights {
        let rights = self.above & leaf.rights();
        if self.has_flags && !leaf.is_dirty() { rights - Rights::WRITE } else { rights }
    }
}

impl<M: GuestMemory + ?Sized> Ept12<'_, M> {
    /// Translates an access of L2 at `gpa` that needs the rights `access`, and sets accessed and dirty flags as
    /// the processor does.
    ///
    /// # Errors
    ///
    /// [`Fault`]. Accessed flags may have been set then, no dirty flag.
    pub(crate) fn translate(
        &self,
        gpa: GuestPhysAddr,
        access: Rights,
        mut log: Option<&mut PageModificationLog>,
        found: &mut Translation,
    ) -> Result<(), Fault> {
        if gpa.get() >> TABLE_BITS != 0 {
            return Err(Fault::Violation(Rights::empty()));
        }
        for _ in 0..ATTEMPTS {
            self.descend(gpa, found)?;
            let rights = found.above & found.leaf().rights();
            if !rights.contains(access) {
                return Err(Fault::Violation(rights));
            }
            if !found.has_flags || self.mark(found, gpa, access, log.as_deref_mut())? {
                return Ok(());
            }
        }
        Err(Fault::Changed)
    }

    /// Follows the tables down to the leaf.
    fn descend(&self, gpa: GuestPhysAddr, path: &mut Translation) -> Result<(), Fault> {
        let mut table = self.pointer.root().get();
        (path.length, path.level, path.above) = (0, TOP_LEVEL, Rights::all());
        path.has_flags = self.pointer.has_accessed_dirty();
        loop {
            let at = GuestPhysAddr::new(table + 8 * index(gpa.get(), path.level) as u64);
            let entry = if path.level == 1 { self.read_line(at, &mut path.line) } else { self.read(at) };
            if !entry.is_present() {
                return Err(Fault::Violation(Rights::empty()));
            }
            if entry.is_misconfigured(path.level, self.features) {
                return Err(Fault::Misconfiguration);
            }
            path.entries[path.length] = (at, entry);
            path.length += 1;
            if entry.is_leaf(path.level) {
                return Ok(());
            }
            path.above &= entry.rights();
            table = entry.address(PageSize::Size4K);
            path.level -= 1;
        }
    }

    fn read(&self, at: GuestPhysAddr) -> EptEntry {
        let mut word = [0];
        let result = self.memory.read_words(at, &mut word);
        EptEntry(result.map_or(ALL_ONES, |()| word[0]))
    }

    /// Reads the entry at `at`, and those of its cache line, which no processor would fetch it without.
    fn read_line(&self, at: GuestPhysAddr, line: &mut [u64; LINE]) -> EptEntry {
        let start = GuestPhysAddr::new(at.get() & !(LINE_BYTES - 1));
        if self.memory.read_words(start, line).is_err() {
            *line = [ALL_ONES; LINE];
        }
        EptEntry(line[position(at)])
    }

    /// Sets the flags; false where an entry has changed since it was read.
    fn mark(
        &self,
        path: &mut Translation,
        gpa: GuestPhysAddr,
        access: Rights,
        log: Option<&mut PageModificationLog>,
    ) -> Result<bool, Fault> {
        let is_dirtied = access.contains(Rights::WRITE) && !path.leaf().is_dirty();
        for position in 0..path.length {
            let is_leaf = position + 1 == path.length;
            let dirty = if is_leaf && is_dirtied { EptEntry::DIRTY } else { 0 };
            // Before the flag is set, which a log without room forbids (SDM, "Page-Modification Logging").
            if dirty != 0 && log.as_ref().is_some_and(|log| log.index >= LOG_ENTRIES) {
                return Err(Fault::LogFull);
            }
            let (at, entry) = path.entries[position];
            let marked = entry.0 | EptEntry::ACCESSED | dirty;
            // A refusal is taken for a write that the memory ignores.
            // Not a plain write: another of L1's processors may have changed the entry since it was read.
            if marked != entry.0 && self.memory.compare_exchange(at, entry.0, marked) == Ok(false) {
                return Ok(false);
            }
            path.entries[position].1 = EptEntry(marked);
            if is_leaf && path.level == 1 {
                path.line[self::position(at)] = marked;
            }
        }
        // After the flag: where the entry had changed, nothing was dirtied.
        if let (true, Some(log)) = (is_dirtied, log) {
            self.log(log, gpa);
        }
        Ok(true)
    }

    fn log(&self, log: &mut PageModificationLog, gpa: GuestPhysAddr) {
        let at = GuestPhysAddr::new(log.page.get() + 8 * u64::from(log.index));
        // A page that is not L1's swallows the entry.
        let _ = self.memory.write(at, &gpa.page().get().to_le_bytes());
        log.index = log.index.wrapping_sub(1);
    }
}

/// Position in its cache line of the entry at `at`.
const fn position(at: GuestPhysAddr) -> usize {
    at.page_offset() / 8 % LINE
}

#[cfg(test)]
#[path = "ept12_tests.rs"]
mod tests;
