//! Checked access to the guest's memory, by guest-physical and by linear address.
//!
//! What a guest hands over is an allegation: an address gives bytes only after the guest's own paging and
//! segmentation allowed the access, and [`GuestMemory`] found it outside the hypervisor's memory. What they
//! forbid comes back as the [`Event`] that the processor would have raised. Key types: [`GuestView`],
//! [`GuestMemory`]; neighbour: [`segmentation`], from segment and offset to a linear address.

pub mod canonical;
#[cfg(any(test, fuzzing))]
pub(crate) mod fake;
mod masking;
mod paging;
#[cfg(test)]
mod paging_tests;
mod recent;
pub mod segmentation;
mod walk;

pub use paging::{Paging, PdpteError, is_pdpte_valid, load_pdptes};
pub use walk::{Access, Intent, Privilege};

use crate::vcpu::Vcpu;
use recent::Recent;
use x86::address::{GuestLinearAddr, GuestPhysAddr};
use x86::event::Event;
use x86::paging::PAGE_BYTES;

/// The memory is not the guest's, or a hypapp's protections forbid the access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused;

/// The processor's answer to an access that [`GuestMemory`] refuses: the same as to the guest's own access.
impl From<Refused> for Event {
    fn from(Refused: Refused) -> Self {
        Self::GP0
    }
}

/// Guest-physical memory, without the hypervisor's and under the hypapp's protections.
///
/// No access crosses a 4 KiB page; callers see to it.
pub trait GuestMemory {
    /// Copies `bytes.len()` bytes at `address` out.
    ///
    /// # Errors
    ///
    /// [`Refused`]; `bytes` is unchanged then.
    fn read(&self, address: GuestPhysAddr, bytes: &mut [u8]) -> Result<(), Refused>;

    /// Copies code at `address` to `bytes`: what may be executed, though it may not be read.
    ///
    /// # Errors
    ///
    /// [`Refused`]; `bytes` is unchanged then.
    fn fetch(&self, address: GuestPhysAddr, bytes: &mut [u8]) -> Result<(), Refused> {
        self.read(address, bytes)
    }

    /// Copies `bytes` to `address`.
    ///
    /// # Errors
    ///
    /// [`Refused`]; nothing is written then.
    fn write(&self, address: GuestPhysAddr, bytes: &[u8]) -> Result<(), Refused>;

    /// Reads 64-bit words from `address` on, which is 8-byte aligned; each read is atomic.
    ///
    /// # Errors
    ///
    /// [`Refused`]; some words may have been read then.
    fn read_words(&self, address: GuestPhysAddr, words: &mut [u64]) -> Result<(), Refused>;

    /// Writes `new` where the 64-bit word at `address`, which is 8-byte aligned, still is `current`, in one
    /// atomic step. Tells whether it was.
    ///
    /// # Errors
    ///
    /// [`Refused`]; nothing is written then.
    fn compare_exchange(&self, address: GuestPhysAddr, current: u64, new: u64) -> Result<bool, Refused>;

    /// Width in bits of the guest's physical addresses (SDM, "Physical-Address Width", MAXPHYADDR).
    fn physical_address_bits(&self) -> u8;

    /// Returns whether the guest's processor has 1 GiB pages.
    fn has_1gib_pages(&self) -> bool;
}

/// A guest's linear address space as one of its processors sees it at this moment.
///
/// A snapshot: it goes stale when the guest's paging state is changed.
#[derive(Debug)]
pub struct GuestView<'a, M: ?Sized> {
    memory: &'a M,
    paging: Paging,
    recent: Recent,
}

impl<'a, M: GuestMemory + ?Sized> GuestView<'a, M> {
    /// Makes the address space of `vcpu`.
    pub fn new<V: Vcpu + ?Sized>(vcpu: &V, memory: &'a M) -> Self {
        Self { memory, paging: Paging::of(vcpu, memory), recent: Recent::new() }
    }

    /// Copies `bytes.len()` bytes at `address` out; `bytes` is unspecified after an error.
    ///
    /// # Errors
    ///
    /// What the guest takes where its paging, or the hypervisor, forbids the access.
    pub fn read(
        &self,
        address: GuestLinearAddr,
        bytes: &mut [u8],
        privilege: Privilege,
    ) -> Result<(), Event> {
        self.copy_out(address, bytes, Access { intent: Intent::Read, privilege })
    }

    /// Copies `bytes.len()` bytes of code at `address` out; `bytes` is unspecified after an error.
    ///
    /// # Errors
    ///
    /// What the guest takes where its paging, or the hypervisor, forbids the fetch.
    pub fn fetch(
        &self,
        address: GuestLinearAddr,
        bytes: &mut [u8],
        privilege: Privilege,
    ) -> Result<(), Event> {
        self.copy_out(address, bytes, Access { intent: Intent::Fetch, privilege })
    }

    fn copy_out(&self, address: GuestLinearAddr, bytes: &mut [u8], access: Access) -> Result<(), Event> {
        let (mut at, mut rest) = (address, bytes);
        while !rest.is_empty() {
            let (chunk, behind) = rest.split_at_mut(rest.len().min(PAGE_BYTES - at.page_offset()));
            let found = self.translate(at, access)?;
            match access.intent {
                Intent::Fetch => self.memory.fetch(found, chunk)?,
                Intent::Read | Intent::Write => self.memory.read(found, chunk)?,
            }
            at = self.paging.step(at, chunk.len());
            rest = behind;
        }
        Ok(())
    }

    /// Copies `bytes` to `address`; where paging forbids any page of it, nothing is written.
    ///
    /// # Errors
    ///
    /// What the guest takes where its paging, or the hypervisor, forbids the access.
    pub fn write(&self, address: GuestLinearAddr, bytes: &[u8], privilege: Privilege) -> Result<(), Event> {
        let access = Access { intent: Intent::Write, privilege };
        self.probe(address, bytes.len(), access)?;
        let (mut at, mut rest) = (address, bytes);
        while !rest.is_empty() {
            let (chunk, behind) = rest.split_at(rest.len().min(PAGE_BYTES - at.page_offset()));
            self.memory.write(self.translate(at, access)?, chunk)?;
            at = self.paging.step(at, chunk.len());
            rest = behind;
        }
        Ok(())
    }

    /// Finds out whether `length` bytes at `address` could be accessed, without touching them.
    ///
    /// Accessed and dirty flags are set as by the access itself.
    ///
    /// # Errors
    ///
    /// What the guest takes where its paging forbids the access.
    pub fn probe(&self, address: GuestLinearAddr, length: usize, access: Access) -> Result<(), Event> {
        let (mut at, mut rest) = (address, length);
        while rest > 0 {
            self.translate(at, access)?;
            let chunk = rest.min(PAGE_BYTES - at.page_offset());
            at = self.paging.step(at, chunk);
            rest -= chunk;
        }
        Ok(())
    }

    /// Returns the guest-physical address behind `address`, accessed and dirty flags set as by an access.
    ///
    /// # Errors
    ///
    /// What the guest takes where its paging forbids the access.
    pub fn translate(&self, address: GuestLinearAddr, access: Access) -> Result<GuestPhysAddr, Event> {
        if let Some(found) = self.recent.find(address, access) {
            return Ok(found);
        }
        let found = walk::translate(self.memory, &self.paging, address, access)?;
        self.recent.keep(address, found, access);
        Ok(found)
    }
}
