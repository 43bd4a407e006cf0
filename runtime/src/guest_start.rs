//! What the guest starts from, decided at boot: where it is placed, and in which state the guest's processor enters it.

use crate::exit::e820;
use crate::exit::real_mode::{self, BOOT_SECTOR};
use crate::memory::guest::{GuestMemory, Refused};
use crate::vcpu::Vcpu;
use platform::handoff::Handoff;
use x86::address::GuestPhysAddr;
use x86::paging::PAGE_SIZE;

/// What the guest starts from. Firmware that goes on behind the hypervisor becomes a second variant: its own next
/// instruction, with nothing to be placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GuestStart<'a> {
    /// A boot sector, entered as a BIOS does.
    BootSector {
        /// Its bytes.
        sector: &'a [u8],
        /// BIOS number of the drive that it is of.
        drive: u8,
    },
}

impl<'a> GuestStart<'a> {
    /// What the bootloader left.
    pub(crate) fn of(handoff: &'a Handoff) -> Self {
        Self::BootSector { sector: handoff.boot_sector(), drive: handoff.boot_drive }
    }

    /// Puts it, and what the hypervisor has in its way, into the guest's memory.
    ///
    /// # Errors
    ///
    /// The memory is not the guest's.
    pub(crate) fn place<M: GuestMemory + ?Sized>(&self, memory: &M) -> Result<(), Refused> {
        let Self::BootSector { sector, .. } = *self;
        let (mut at, mut left) = (BOOT_SECTOR, sector);
        while !left.is_empty() {
            let room = usize::try_from(PAGE_SIZE - at % PAGE_SIZE).unwrap_or(1);
            let (piece, rest) = left.split_at(room.min(left.len()));
            memory.write(GuestPhysAddr::new(at), piece)?;
            (at, left) = (at + piece.len() as u64, rest);
        }
        e820::install(memory).map(|_| ())
    }

    /// Gives the guest's first processor the state in which it starts.
    pub(crate) fn enter<V: Vcpu + ?Sized>(&self, vcpu: &mut V) {
        let Self::BootSector { drive, .. } = *self;
        real_mode::boot_sector(vcpu, drive);
    }
}

#[cfg(test)]
mod tests {
    use super::{BOOT_SECTOR, GuestStart};
    use crate::memory::guest::fake::FakeMemory;
    use crate::vcpu::fake::FakeVcpu;

    #[test]
    fn what_is_placed_is_what_is_entered() {
        let mut sector = [0x90; 0x1000];
        sector[0xfff] = 0xf4;
        let start = GuestStart::BootSector { sector: &sector, drive: 0x81 };
        let memory = FakeMemory::new(0x1_0000);
        assert_eq!(start.place(&memory), Ok(()));
        assert_eq!(memory.get::<0x1000>(BOOT_SECTOR), sector);
        assert_ne!(memory.get::<4>(0x15 * 4), [0; 4], "the memory map's hook");
        let mut vcpu = FakeVcpu::long_mode();
        start.enter(&mut vcpu);
        assert_eq!((vcpu.rip, vcpu.registers.rdx()), (BOOT_SECTOR, 0x81));
    }

    #[test]
    fn memory_that_is_not_the_guests_is_not_written() {
        let sector = [0x90; 0x1000];
        let start = GuestStart::BootSector { sector: &sector, drive: 0 };
        for hidden in [0x8000..0x9000, 0x400..0x500] {
            let mut memory = FakeMemory::new(0x1_0000);
            memory.hidden = hidden;
            assert!(start.place(&memory).is_err());
        }
    }
}
