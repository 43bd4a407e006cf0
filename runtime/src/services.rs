//! What the core does for hypapps.

pub use crate::memory::range::GuestRange;
pub use crate::smp::Quiesced;
pub use x86::paging::Rights;

use crate::machine::{self, SECOND_LEVEL};
use crate::memory::second_level::ProtectError;
use crate::memory::views::View;
use crate::smp::{percpu, quiesce as rendezvous};
use x86::address::GuestPhysAddr;

/// Runs `act` while no other CPU executes guest code.
pub fn quiesce<T>(act: impl FnOnce(&Quiesced) -> T) -> T {
    rendezvous::quiesce(act)
}

/// Number of VM exits that all other CPUs have had so far.
#[must_use]
pub fn exits_of_others(_: &Quiesced) -> u64 {
    let own = percpu::current().index;
    let others = machine::cpus().iter().filter(|cpu| cpu.index != own);
    others.flat_map(|cpu| cpu.exits()).map(|(_, count)| count).sum()
}

/// What the guest's CPUs may do with the page at `address`.
#[must_use]
pub fn protection(address: GuestPhysAddr) -> Rights {
    SECOND_LEVEL.lock().rights(View::SHARED, address)
}

/// Restricts, or gives back, what all of the guest's CPUs may do with `range`.
///
/// # Errors
///
/// The range touches hypervisor memory or lies beyond what the guest can reach; the processor cannot
/// express the rights; or resources are exhausted. Nothing has changed then.
pub fn set_protection(range: GuestRange, rights: Rights) -> Result<(), ProtectError> {
    let flush = SECOND_LEVEL.lock().set_rights(View::SHARED, range, rights)?;
    machine::flush_second_level(flush);
    Ok(())
}

/// Gives the guest's CPUs back all rights on `range`.
///
/// # Errors
///
/// As for [`set_protection`].
pub fn reset_protection(range: GuestRange) -> Result<(), ProtectError> {
    let flush = SECOND_LEVEL.lock().reset_rights(View::SHARED, range)?;
    machine::flush_second_level(flush);
    Ok(())
}

/// Reads an address that nothing is mapped at: for hypapps that show what a stop looks like.
#[must_use]
pub fn read_unmapped() -> u64 {
    crate::panic::read_unmapped()
}
