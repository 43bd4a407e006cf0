//! What the guest's physical memory is: the truth, of which page tables are only a cache.
//!
//! A guest-physical page is the host-physical page of the same address; the hypervisor region is never one.
//! Its memory type comes from the guest-visible MTRRs, its rights from [`Protections`]. Every answer is given
//! as a run of pages that share it, so that whoever fills tables does not ask page by page.

use platform::handoff::{MemoryRange, PhysRange, USABLE};
use platform::mtrr_map::{Changes, Mtrrs, TypeMap};
use x86::address::{GuestPhysAddr, HostPhysAddr};
use x86::paging::{Attributes, PageSize, Rights};

use super::guarded::GuardedPages;
use super::lent::Lent;
use super::protect::{Protection, Protections};
use super::range::GuestRange;
use super::unseen::UnseenWrites;
use super::views::View;
use super::watch::WatchedPages;

/// Address bits that four levels of tables translate.
const TABLE_BITS: u8 = 48;

/// What does not change, and the MTRRs as they are at the start.
#[derive(Clone, Debug)]
pub struct MemoryFacts {
    /// The hypervisor region, which the guest must not reach; pages aligned.
    pub region: PhysRange,
    /// The memory map that the guest is given.
    pub memory_map: &'static [MemoryRange],
    /// Bits of a physical address that name memory.
    pub physical_address_bits: u8,
    /// Largest page that second-level tables of this processor can map.
    pub largest_page: PageSize,
    /// Second-level tables can allow fetches without reads.
    pub has_execute_only: bool,
    /// The MTRRs that the guest sees.
    pub mtrrs: Mtrrs,
}

/// Adjoining guest-physical pages that are alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The pages.
    pub range: GuestRange,
    /// Type and rights; `None` for what is never mapped. Rights may be empty.
    pub attributes: Option<Attributes>,
}

/// The policy.
#[derive(Debug)]
pub struct Policy {
    region: PhysRange,
    /// `None` before the start: an empty slice is no zeros, and the image would hold all that lies around it.
    memory_map: Option<&'static [MemoryRange]>,
    physical_address_bits: u8,
    largest_page: PageSize,
    has_execute_only: bool,
    types: TypeMap,
    /// What hypapps set.
    pub(super) protections: Protections,
    /// A frame of zeros.
    pub(super) decoy: HostPhysAddr,
    /// Pages that the guest cannot write without an exit.
    pub(super) watched: WatchedPages,
    /// Pages to which the guest's stores are carried out by the hypervisor.
    pub(super) guarded: GuardedPages,
    /// Pages that the processor writes past the tables.
    pub(super) lent: Lent,
    /// Pages that processors write past the tables for now.
    pub(super) unseen: UnseenWrites,
}

impl Policy {
    /// Makes a policy that maps nothing, for [`Self::start`] to fill.
    pub(super) const fn new() -> Self {
        Self {
            region: PhysRange { base: 0, length: 0 },
            memory_map: None,
            physical_address_bits: 0,
            largest_page: PageSize::Size4K,
            has_execute_only: false,
            types: TypeMap::disabled(0),
            protections: Protections::new(),
            decoy: HostPhysAddr::new(0),
            watched: WatchedPages::new(),
            guarded: GuardedPages::new(),
            lent: Lent::new(),
            unseen: UnseenWrites::new(),
        }
    }

    pub(super) fn start(&mut self, machine: &MemoryFacts) {
        self.region = machine.region;
        self.memory_map = Some(machine.memory_map);
        self.physical_address_bits = machine.physical_address_bits;
        self.largest_page = machine.largest_page;
        self.has_execute_only = machine.has_execute_only;
        self.types.set(&machine.mtrrs);
    }

    /// Returns the run around `address` in `view`, as long as a few steps find it.
    #[must_use]
    pub fn run_at(&self, view: View, address: u64) -> Run {
        if address >= self.reach() {
            return Run { range: GuestRange::between(self.reach(), u64::MAX), attributes: None };
        }
        let region = self.region;
        let region_end = region.base + region.length;
        if (region.base..region_end).contains(&address) {
            return Run { range: GuestRange::between(region.base, region_end), attributes: None };
        }

        let types = self.types.run_at(address);
        let (mut start, mut end) = (types.start, types.end.min(self.reach()));
        if address < region.base {
            end = end.min(region.base);
        } else {
            start = start.max(region_end);
        }
        let shared = self.protections.run_at(View::SHARED, address);
        (start, end) = (start.max(shared.start), end.min(shared.end));
        let mut protection = shared.protection;
        if view != View::SHARED {
            let own = self.protections.run_at(view, address);
            (start, end) = (start.max(own.start), end.min(own.end));
            protection = own.protection.or(protection);
        }
        let protection = protection.unwrap_or(Protection::Rights(Rights::all()));
        let (mut rights, is_decoy) = (protection.rights(), protection == Protection::Decoy);
        let (range, is_watched) = self.watched.run_at(address, GuestRange::between(start, end));
        let (range, is_guarded) = self.guarded.run_at(address, range);
        if is_watched || is_guarded {
            rights -= Rights::WRITE;
        }
        Run { range, attributes: Some(Attributes { memory_type: types.memory_type, rights, is_decoy }) }
    }

    /// Returns what the guest may do with the page at `address` in `view`, and whether zeros stand in for it: as
    /// [`Self::run_at`] says, and sooner. `None` for what is never mapped.
    #[must_use]
    pub fn allowance_at(&self, view: View, address: u64) -> Option<(Rights, bool)> {
        let is_hidden = address.wrapping_sub(self.region.base) < self.region.length;
        if address >= self.reach() || is_hidden {
            return None;
        }
        let own = if view == View::SHARED { None } else { self.protections.at(view, address) };
        let protection = own.or_else(|| self.protections.at(View::SHARED, address));
        let mut rights = protection.map_or(Rights::all(), Protection::rights);
        if self.watched.is_watched(address) || self.is_guarded(GuestRange::page(GuestPhysAddr::new(address)))
        {
            rights -= Rights::WRITE;
        }
        Some((rights, protection == Some(Protection::Decoy)))
    }

    /// Returns the largest page around `address` that is all alike in `view`.
    #[must_use]
    pub fn page_at(&self, view: View, address: u64) -> Run {
        let run = self.run_at(view, address);
        Run { range: run.largest_page(address, self.largest_page), ..run }
    }

    /// Returns the frame of zeros that the guest reads where a decoy stands in for a page.
    #[must_use]
    pub const fn decoy(&self) -> HostPhysAddr {
        self.decoy
    }

    /// Returns the physical addresses of the pages that decoys stand in for, in some view.
    pub fn hidden_pages(&self) -> impl Iterator<Item = u64> + '_ {
        self.protections.decoy_pages()
    }

    /// Returns the first address that tables cannot map.
    #[must_use]
    pub const fn reach(&self) -> u64 {
        let bits = self.physical_address_bits;
        1 << if bits < TABLE_BITS { bits } else { TABLE_BITS }
    }

    /// Returns whether some page of `range` is the hypervisor's.
    #[must_use]
    pub fn is_hidden(&self, range: GuestRange) -> bool {
        let region = self.region;
        range.start() < region.base + region.length && region.base < range.end()
    }

    /// Returns whether the guest's stores to some page of `range` are carried out by the hypervisor.
    #[must_use]
    pub fn is_guarded(&self, range: GuestRange) -> bool {
        self.guarded.touches(range)
    }

    /// Returns whether some page of `range` is memory: usable by the memory map, or the hypervisor's.
    #[must_use]
    pub fn touches_memory(&self, range: GuestRange) -> bool {
        let touches = |record: &&MemoryRange| {
            record.base < range.end() && range.start() < record.base.saturating_add(record.length)
        };
        self.is_hidden(range)
            || self.memory_map.iter().copied().flatten().filter(touches).any(|record| record.kind == USABLE)
    }

    /// Tables of this processor can say `rights`.
    ///
    /// Writes without reads are an error in an entry on every processor.
    #[must_use]
    pub const fn can_express(&self, rights: Rights) -> bool {
        rights.contains(Rights::READ)
            || rights.is_empty()
            || self.has_execute_only && !rights.contains(Rights::WRITE)
    }

    pub(super) const fn largest_page_size(&self) -> PageSize {
        self.largest_page
    }

    /// Takes memory types from `mtrrs` from now on; gives the ranges that changed, or `None` where that is too
    /// much to tell.
    pub(super) fn set_mtrrs(&mut self, mtrrs: &Mtrrs) -> Option<Changes> {
        let old = self.types.clone();
        self.types.set(mtrrs);
        old.changes(&self.types)
    }
}

impl Run {
    /// Returns what tables hold for these pages: nothing where there is no right.
    #[must_use]
    pub fn mapping(&self) -> Option<Attributes> {
        self.attributes.filter(|attributes| !attributes.rights.is_empty())
    }

    /// Returns the largest page around `address` inside the run, and not larger than `limit`.
    pub(super) fn largest_page(&self, address: u64, limit: PageSize) -> GuestRange {
        // Each decoy page has an entry of its own.
        let is_decoy = self.attributes.is_some_and(|attributes| attributes.is_decoy);
        let limit = if is_decoy { PageSize::Size4K } else { limit };
        PageSize::DESCENDING
            .into_iter()
            .filter(|&size| size <= limit)
            .map(|size| GuestRange::block(address, size.bytes()))
            .find(|&block| self.range.contains(block))
            .unwrap_or(GuestRange::block(address, PageSize::Size4K.bytes()))
    }
}
