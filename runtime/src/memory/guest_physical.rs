//! The guest's memory as its own processor reaches it: what the second-level tables allow, and no more.

use super::guest::{GuestMemory, Refused};
use super::host::GuestFrames;
use crate::features::features;
use crate::machine::{self, SECOND_LEVEL};
use crate::smp::{percpu, shootdown};
use hw::Unmapped;
use x86::address::{GuestPhysAddr, HostPhysAddr};
use x86::paging::Rights;

/// Guest-physical memory, seen from the executing CPU.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GuestPhysical;

impl GuestPhysical {
    /// Guest-physical and host-physical addresses are the same, outside the hypervisor region; `None` where the
    /// guest reads zeros in place of the page.
    fn reach(gpa: GuestPhysAddr, bytes: usize, access: Rights) -> Result<Option<HostPhysAddr>, Refused> {
        let width = features().physical_address_bits;
        if machine::region().overlaps(gpa.get(), bytes as u64) || gpa.get() >> width != 0 {
            return Err(Refused);
        }
        let mut second_level = SECOND_LEVEL.lock();
        // The watch ends first, as the policy would refuse the write. Other CPUs are asked and not waited for: the
        // lock is held.
        if access.contains(Rights::WRITE) && second_level.written(gpa) {
            shootdown::ask();
        }
        let allowance = second_level.policy().allowance_at(percpu::current().view(), gpa.get());
        let (rights, is_decoy) = allowance.ok_or(Refused)?;
        if !rights.contains(access) {
            return Err(Refused);
        }
        Ok((!is_decoy).then_some(HostPhysAddr::new(gpa.get())))
    }

    fn copy(gpa: GuestPhysAddr, bytes: &mut [u8], access: Rights) -> Result<(), Refused> {
        match Self::reach(gpa, bytes.len(), access)? {
            Some(address) => GuestFrames::read(address, bytes)?,
            None => bytes.fill(0),
        }
        Ok(())
    }

    /// Reads words of one page that the guest may read.
    pub(crate) fn read_allowed_words(address: HostPhysAddr, words: &mut [u64]) -> Result<(), Refused> {
        Ok(GuestFrames::read_words(address, words)?)
    }
}

impl GuestMemory for GuestPhysical {
    fn read(&self, gpa: GuestPhysAddr, bytes: &mut [u8]) -> Result<(), Refused> {
        Self::copy(gpa, bytes, Rights::READ)
    }

    fn fetch(&self, gpa: GuestPhysAddr, bytes: &mut [u8]) -> Result<(), Refused> {
        Self::copy(gpa, bytes, Rights::EXECUTE)
    }

    fn write(&self, gpa: GuestPhysAddr, bytes: &[u8]) -> Result<(), Refused> {
        let address = Self::reach(gpa, bytes.len(), Rights::WRITE)?.ok_or(Refused)?;
        Ok(GuestFrames::write(address, bytes)?)
    }

    fn read_words(&self, gpa: GuestPhysAddr, words: &mut [u64]) -> Result<(), Refused> {
        match Self::reach(gpa, size_of_val(words), Rights::READ)? {
            Some(address) => Self::read_allowed_words(address, words)?,
            None => words.fill(0),
        }
        Ok(())
    }

    fn compare_exchange(&self, gpa: GuestPhysAddr, current: u64, new: u64) -> Result<bool, Refused> {
        let address = Self::reach(gpa, size_of::<u64>(), Rights::READ | Rights::WRITE)?.ok_or(Refused)?;
        Ok(GuestFrames::compare_exchange(address, current, new)?)
    }

    fn physical_address_bits(&self) -> u8 {
        features().physical_address_bits
    }

    fn has_1gib_pages(&self) -> bool {
        features().has_1gib_pages
    }
}

impl From<Unmapped> for Refused {
    fn from(Unmapped: Unmapped) -> Self {
        Self
    }
}
