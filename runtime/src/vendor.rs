//! The contract of a processor vendor, as far as the floors below the vendor's own need it.
//!
//! The root of the modules names the one vendor that there is; the boot gives it to the [machine](crate::machine), which
//! hands it on. Nothing else outside the vendor's folder names what implements this.

use crate::exit::cpuid::Instructions;
use crate::hypapp::Hypapp;
use crate::memory::TableRoot;
use crate::memory::compartment_tables::Roots;
use crate::memory::guest::{GuestMemory, Refused};
use crate::policies::Policies;
use core::fmt;
use platform::handoff::Handoff;
use x86::address::GuestPhysAddr;
use x86::cr::Cr4;
use x86::event::Event;
use x86::paging::{PageSize, Rights};

/// What the processor's second-level tables can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SecondLevelFeatures {
    /// The largest page that an entry can map.
    pub(crate) largest_page: PageSize,
    /// An entry can allow fetches and no reads.
    pub(crate) has_execute_only: bool,
}

/// What a vendor puts aside of the guest's processor while that runs in a compartment, in an order of its own.
#[derive(Debug)]
pub(crate) struct Outside(pub(crate) [u64; Self::WORDS]);

impl Outside {
    /// Room for what any vendor puts aside.
    pub(crate) const WORDS: usize = 50;

    /// Nothing was put aside yet.
    pub(crate) const fn new() -> Self {
        Self([0; Self::WORDS])
    }
}

/// What every vendor of processors has for the hypervisor. Methods act on the executing CPU.
pub(crate) trait Vendor: Sync {
    /// Finds out what the second-level tables can do.
    fn second_level_features(&self) -> SecondLevelFeatures;

    /// Drops this CPU's translations of guest-physical addresses. The CPU is set up to run a guest.
    fn invalidate_second_level(&self);

    /// Takes what changed in the second-level tables out of what was derived from them for guests of the guest; returns
    /// whether processors may use some of that, and hence have to drop translations.
    fn forget_changes(&self) -> bool;

    /// Returns the CR4 bits that the guest may set.
    fn cr4_for_guest(&self) -> Cr4;

    /// Returns the instructions that the processor has and its guest cannot, as nothing would let it.
    fn missing_instructions(&self) -> Instructions;

    /// Intercepts IA32_APIC_BASE on every CPU from its next entry on: somewhere it is not what the guest made it.
    fn intercept_apic_base(&self);

    /// Prepares what all CPUs share, before any of them has a guest.
    fn prepare(&self, handoff: &Handoff, hypapp: &dyn Hypapp, policies: &Policies);

    /// Enters the guest at its boot sector on the bootstrap processor, behind `finish`.
    fn run_bootstrap_processor(&self, finish: &mut dyn FnMut()) -> !;

    /// Waits, as a guest, for the guest's start-up IPI.
    fn run_application_processor(&self) -> !;

    /// Has what the hypapp watches on this CPU exit, from the guest and from any guest of the guest, and what it watched
    /// no more.
    fn follow_watched_events(&self);

    /// Puts the guest on the second-level tables under `root` from its next entry on.
    fn use_second_level(&self, root: TableRoot);

    /// Returns whether a guest of the guest's runs.
    fn is_nested(&self) -> bool;

    /// Returns whether it runs under second-level tables of its hypervisor's.
    fn has_nested_second_level(&self) -> bool;

    /// Returns the memory of the guest's guest that runs, which notes what its hypervisor's tables lack; `None` where
    /// none does.
    fn nested_memory(&self) -> Option<&'static dyn GuestMemory>;

    /// Returns where `gpa` of the guest's guest is in the guest's memory.
    ///
    /// # Errors
    ///
    /// Its hypervisor's tables do not allow the access, which is noted.
    fn translate_nested(&self, gpa: GuestPhysAddr, access: Rights) -> Result<GuestPhysAddr, Refused>;

    /// Notes a page fault that the page tables of the guest's guest stand for.
    fn note_nested_fault(&self, event: Event);

    /// Asks the hypervisor of the guest's guest for what was noted last, once the exit is through; false where that is
    /// nothing of its, or no exit is handled that its guest would try again behind.
    fn ask_nested_hypervisor(&self) -> bool;

    /// Puts the guest's processor aside and has it run in the compartment under `roots` for at most `ticks`: without
    /// interrupts, system calls, vector registers, breakpoints, or any descriptor table, and with flat segments. Every
    /// exception exits.
    ///
    /// RIP, RSP and the general registers are the caller's to set.
    fn enter_compartment(&self, roots: &Roots, ticks: u64);

    /// Gives the guest, which is in its compartment, its processor back, but for RIP, RSP and the general registers.
    fn leave_compartment(&self);

    /// Drops the translations of the compartment under `roots`.
    fn forget_compartment(&self, roots: &Roots);

    /// Returns where the way into the guest starts afresh, if an NMI struck it at `rip`.
    fn restart_after_nmi(&self, rip: u64) -> Option<u64>;

    /// Ends the CPU's ability to run a guest, for good.
    fn leave(&self);

    /// Writes what the processor has about the last exit, and about the guest where `with_guest`.
    ///
    /// # Errors
    ///
    /// Those of `to`.
    fn dump(&self, to: &mut dyn fmt::Write, with_guest: bool) -> fmt::Result;

    /// Returns the name of a cause of exits, by the number that it is counted under.
    fn exit_name(&self, cause: u32) -> &'static str;
}

#[cfg(test)]
#[path = "vendor_tests.rs"]
mod tests;
