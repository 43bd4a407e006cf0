//! Single pages of the guest's memory: hidden from it, given back, and read and written meanwhile.

use super::machine;
use crate::dma::DeviceAccess;
use crate::machine::SECOND_LEVEL;
use crate::memory::guest::{Access, GuestMemory, GuestView, Intent, Privilege};
use crate::memory::guest_physical::GuestPhysical;
use crate::memory::host::GuestFrames;
use crate::memory::protect::{BOUNDARIES, Protection};
use crate::memory::second_level::{ProtectError, RESERVE};
use crate::memory::{Flush, GuestRange};
use crate::smp::shootdown;
use crate::vcpu::Vcpu;
use core::fmt;
use hw::Unmapped;
use platform::handoff::{MemoryRange, USABLE};
use x86::address::{GuestLinearAddr, GuestPhysAddr, HostPhysAddr};
use x86::event::Event;
use x86::paging::Rights;

/// Runs of pages that can be covered at a time, each with two boundaries of its own; a few are left for other ranges.
pub const COVERED_RUNS_LIMIT: usize = BOUNDARIES / 2 - 384;

/// Aligned 2 MiB of memory that can have covered pages at a time: each is mapped by a table of small pages. Of more than
/// there are frames for, a touch of any would have its table made anew.
///
/// To be asked for before anything is covered.
#[must_use]
pub fn covered_regions_limit() -> usize {
    let by_tables = SECOND_LEVEL.lock().frames().available().saturating_sub(RESERVE) / 2;
    machine().devices.closed_regions_limit().map_or(by_tables, |by_units| by_tables.min(by_units))
}

/// What becomes of a page for the guest, on all CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cover {
    /// Reads give zeros; writes and fetches come to the hypapp.
    Hidden,
    /// Reads and fetches go through; writes come to the hypapp.
    ReadOnly,
    /// Reads and writes go through; fetches come to the hypapp.
    NoFetch,
    /// The guest has every right.
    Open,
}

/// Covers pages, one shoot-down for all of them. Holds when it returns: no CPU's guest can do otherwise any more.
/// Devices are kept from a page that is hidden or read-only, where [`is_closed_to_devices`] says so.
///
/// No lock may be held that another CPU waits for.
///
/// # Errors
///
/// A page is not the guest's, or there is no room; others are covered, as [`cover`] with [`Cover::Open`] undoes.
pub fn cover(pages: impl IntoIterator<Item = (GuestPhysAddr, Cover)>) -> Result<(), ProtectError> {
    let devices = &machine().devices;
    let mut last = Flush::NONE;
    let mut result = Ok(());
    for (page, cover) in pages {
        let protection = match cover {
            Cover::Hidden => Some(Protection::Decoy),
            Cover::ReadOnly => Some(Protection::Rights(Rights::READ | Rights::EXECUTE)),
            Cover::NoFetch => Some(Protection::Rights(Rights::READ | Rights::WRITE)),
            Cover::Open => None,
        };
        let done = SECOND_LEVEL.lock().cover(GuestRange::page(page), protection);
        if done.is_ok() {
            let is_open = matches!(cover, Cover::NoFetch | Cover::Open);
            let access = if is_open { DeviceAccess::Open } else { DeviceAccess::Closed };
            if let Err(error) = devices.set_access(HostPhysAddr::new(page.get()), access) {
                result = Err(error);
            }
        }
        match done {
            // A later one covers the frames that earlier ones dropped.
            Ok(flush) if flush.is_needed() => last = flush,
            Ok(_) => {}
            Err(error) => result = Err(error),
        }
    }
    // Once for all pages: a flush waits for every CPU, and for the devices' units.
    shootdown::flush(last);
    devices.flush().and(result)
}

/// Returns whether covered pages are closed to devices as well.
#[must_use]
pub fn is_closed_to_devices() -> bool {
    machine().devices.is_enforced()
}

/// Returns whether the page at `page` is ordinary memory of the guest's, by the machine's memory map.
#[must_use]
pub fn is_memory(page: GuestPhysAddr) -> bool {
    let start = page.page().get();
    let holds = |range: &MemoryRange| {
        range.kind == USABLE && range.base <= start && start + 4096 <= range.base + range.length
    };
    !machine().region.overlaps(start, 4096) && machine().handoff.memory_map().iter().any(holds)
}

/// Copies bytes out of a page, covered or not; they lie in one page that [`is_memory`].
///
/// # Errors
///
/// There is nothing at the address after all.
pub fn read(address: GuestPhysAddr, bytes: &mut [u8]) -> Result<(), Unmapped> {
    GuestFrames::read(HostPhysAddr::new(address.get()), bytes)
}

/// Copies bytes into a page, covered or not; they lie in one page that [`is_memory`].
///
/// # Errors
///
/// There is nothing at the address after all.
pub fn write(address: GuestPhysAddr, bytes: &[u8]) -> Result<(), Unmapped> {
    GuestFrames::write(HostPhysAddr::new(address.get()), bytes)
}

/// Returns the address space of the software that runs on the guest's processor, as that sees it. Of a guest of the
/// guest too, where its hypervisor has no say but this: what it could make accessible is not accessible before it did.
pub fn address_space<V: Vcpu + ?Sized>(vcpu: &V) -> AddressSpace {
    static MEMORY: GuestPhysical = GuestPhysical;
    let nested = machine().vendor.nested_memory();
    AddressSpace { view: GuestView::new(vcpu, nested.unwrap_or(&MEMORY)), is_nested: nested.is_some() }
}

/// Asks the hypervisor of the guest's guest to make accessible what the last access to an [`AddressSpace`] made since
/// found not to be; false where that is not its business.
///
/// That is done when the present event is over. The caller has changed nothing, and leaves its guest where it is
/// ([`Moved`](crate::hypapp::HypercallAnswer::Moved) for a hypercall): there it tries again.
#[must_use]
pub fn ask_hypervisor() -> bool {
    machine().vendor.ask_nested_hypervisor()
}

/// A linear address space.
pub struct AddressSpace {
    view: GuestView<'static, dyn GuestMemory>,
    is_nested: bool,
}

impl fmt::Debug for AddressSpace {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("AddressSpace").field("is_nested", &self.is_nested).finish_non_exhaustive()
    }
}

impl AddressSpace {
    /// Copies bytes out, as [`GuestView::read`].
    ///
    /// # Errors
    ///
    /// What the software takes where the access is forbidden.
    pub fn read(
        &self,
        address: GuestLinearAddr,
        bytes: &mut [u8],
        privilege: Privilege,
    ) -> Result<(), Event> {
        self.view.read(address, bytes, privilege).inspect_err(|&event| self.note(event))
    }

    /// Copies bytes in, as [`GuestView::write`].
    ///
    /// # Errors
    ///
    /// What the software takes where the access is forbidden.
    pub fn write(&self, address: GuestLinearAddr, bytes: &[u8], privilege: Privilege) -> Result<(), Event> {
        self.view.write(address, bytes, privilege).inspect_err(|&event| self.note(event))
    }

    /// Returns the guest-physical address behind `address`: in the guest's memory, also for a guest of its own.
    ///
    /// # Errors
    ///
    /// What the software takes where the access is forbidden.
    pub fn translate(&self, address: GuestLinearAddr, access: Access) -> Result<GuestPhysAddr, Event> {
        let gpa = self.view.translate(address, access).inspect_err(|&event| self.note(event))?;
        if !self.is_nested {
            return Ok(gpa);
        }
        let wanted = match access.intent {
            Intent::Read => Rights::READ,
            Intent::Write => Rights::READ | Rights::WRITE,
            Intent::Fetch => Rights::READ | Rights::EXECUTE,
        };
        Ok(machine().vendor.translate_nested(gpa, wanted)?)
    }

    fn note(&self, event: Event) {
        if self.is_nested {
            machine().vendor.note_nested_fault(event);
        }
    }
}
