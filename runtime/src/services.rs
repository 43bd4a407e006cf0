//! What the core does for hypapps.

pub mod compartment;
pub mod pages;
pub mod private;

pub use crate::memory::range::GuestRange;
pub use crate::smp::Quiesced;
pub use x86::paging::Rights;

use crate::machine::{self, Machine, SECOND_LEVEL};
use crate::memory::second_level::ProtectError;
use crate::memory::views::View;
use crate::smp::watched_events::WatchedEvents;
use crate::smp::{cpus, percpu, quiesce as rendezvous, shootdown};
use x86::address::GuestPhysAddr;

/// Runs `act` while no other CPU executes guest code.
pub fn quiesce<T>(act: impl FnOnce(&Quiesced) -> T) -> T {
    rendezvous::quiesce(act)
}

/// Returns the number of VM exits that all other CPUs have had so far.
#[must_use]
pub fn exits_of_others(_: &Quiesced) -> u64 {
    let own = percpu::current().index;
    let others = cpus::all().iter().filter(|cpu| cpu.index != own);
    others.flat_map(|cpu| cpu.exits()).map(|(_, count)| count).sum()
}

/// Sends external interrupts on the executing CPU to [`crate::hypapp::Hypapp::external_interrupt`], or no longer does.
///
/// It holds whatever the guest does: for a guest of the guest's too, whose hypervisor has its own exit afterwards where
/// it asked for one. What is pending in a compartment waits until the guest is back.
pub fn watch_external_interrupts(wanted: bool) {
    watch(WatchedEvents::EXTERNAL_INTERRUPT, wanted);
}

/// Asks for a call of [`crate::hypapp::Hypapp::interrupt_window`] when the executing CPU's guest can take an interrupt,
/// or not; it holds as [`watch_external_interrupts`] does.
pub fn watch_interrupt_window(wanted: bool) {
    watch(WatchedEvents::INTERRUPT_WINDOW, wanted);
}

fn watch(events: WatchedEvents, wanted: bool) {
    percpu::current().watched.set(events, wanted);
    machine().vendor.follow_watched_events();
}

/// Memory that the hypervisor keeps for good, zeroed: for [`crate::hypapp::Hypapp::init`].
///
/// The image's linker script has to provide for it.
#[must_use]
pub fn take_memory(bytes: usize) -> &'static mut [u8] {
    machine::take_memory(bytes)
}

/// Returns the number of the executing CPU.
#[must_use]
pub fn cpu() -> usize {
    percpu::current().index
}

/// Returns whether the executing CPU's guest runs a guest of its own just now: what comes to the hypapp is that one's.
#[must_use]
pub fn is_nested() -> bool {
    machine().vendor.is_nested()
}

/// Returns whether that guest of the guest has second-level tables of its hypervisor's, which translate its memory to
/// the guest's. Without, its page tables are that hypervisor's as a rule, and it does not know them itself.
#[must_use]
pub fn has_nested_second_level() -> bool {
    machine().vendor.has_nested_second_level()
}

/// VMREADs and VMWRITEs that the hypervisor has executed so far.
#[cfg(feature = "count-vmcs-accesses")]
#[must_use]
pub fn vmcs_accesses() -> hw::bare::vmcs_accesses::VmcsAccesses {
    hw::bare::vmcs_accesses::so_far()
}

/// Reads the time-stamp counter.
#[must_use]
pub fn time_stamp() -> u64 {
    hw::bare::processor::time_stamp()
}

/// RDSEED, once; `None` where the processor has no number now, or never.
#[must_use]
pub fn seed_word() -> Option<u64> {
    machine().policies.generators.rdseed()
}

/// RDRAND, once; `None` where the processor has no number now, or never.
#[must_use]
pub fn random_word() -> Option<u64> {
    machine().policies.generators.rdrand()
}

/// Returns the machine, for hypapps' calls: they have no argument that leads to it.
fn machine() -> &'static Machine {
    percpu::current().machine
}

fn no_frames() -> ProtectError {
    ProtectError::Exhausted
}

/// Whose protections are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Those of every CPU but where its own view says otherwise.
    AllCpus,
    /// Those of the view that the executing CPU has opened.
    ThisCpu,
}

impl Scope {
    fn view(self) -> View {
        match self {
            Self::AllCpus => View::SHARED,
            Self::ThisCpu => View::of_cpu(percpu::current().index),
        }
    }
}

/// Returns what the guest may do with the page at `address`.
#[must_use]
pub fn protection(scope: Scope, address: GuestPhysAddr) -> Rights {
    SECOND_LEVEL.lock().rights(scope.view(), address)
}

/// Restricts, or gives back, what the guest may do with `range`.
///
/// # Errors
///
/// The range touches hypervisor memory or lies beyond what the guest can reach; the processor cannot
/// express the rights; this CPU has no view of its own; or resources are exhausted. Nothing has changed then.
pub fn set_protection(scope: Scope, range: GuestRange, rights: Rights) -> Result<(), ProtectError> {
    let flush = SECOND_LEVEL.lock().set_rights(scope.view(), range, rights)?;
    shootdown::flush(flush);
    Ok(())
}

/// Drops what was said of `range`: for all CPUs the guest has all rights again, for this CPU those of all.
///
/// # Errors
///
/// As for [`set_protection`].
pub fn reset_protection(scope: Scope, range: GuestRange) -> Result<(), ProtectError> {
    let flush = SECOND_LEVEL.lock().reset_rights(scope.view(), range)?;
    shootdown::flush(flush);
    Ok(())
}

/// Gives the executing CPU a view of its own, which begins as what all CPUs have; other CPUs go on meanwhile.
///
/// # Errors
///
/// Resources are exhausted.
pub fn open_view() -> Result<(), ProtectError> {
    let root = SECOND_LEVEL.lock().open_view(Scope::ThisCpu.view())?;
    machine().vendor.use_second_level(root);
    percpu::current().set_own_view(true);
    Ok(())
}

/// Takes the executing CPU back to what all CPUs have, and forgets the protections of its view.
pub fn close_view() {
    let mut second_level = SECOND_LEVEL.lock();
    let Some(shared) = second_level.root(View::SHARED) else { return };
    // This CPU's guest is on other tables before its own are taken apart.
    machine().vendor.use_second_level(shared);
    percpu::current().set_own_view(false);
    let flush = second_level.close_view(Scope::ThisCpu.view());
    // The flush waits for all CPUs, which may want the lock.
    drop(second_level);
    shootdown::flush(flush);
}

/// Returns the word at `address` in the hypervisor's own address space; `None` where nothing is mapped.
#[must_use]
pub fn probe(address: u64) -> Option<u64> {
    crate::panic::probe(address)
}

/// Reads an address that nothing is mapped at: for hypapps that show what a stop looks like.
#[must_use]
pub fn read_unmapped() -> u64 {
    crate::panic::read_unmapped()
}
