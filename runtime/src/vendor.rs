//! The contract of a processor vendor, as far as the floors below the vendor's own need it.
//!
//! The boot hands its implementation to the [machine](crate::machine), which hands it on: nothing here or below names
//! what implements it.

use crate::exit::cpuid::Instructions;
use core::fmt;
use x86::cr::Cr4;
use x86::paging::PageSize;

/// The format of this processor's second-level tables.
pub(crate) type SecondLevelFormat = x86::vmx::ept::EptFormat;

/// What the processor's second-level tables can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SecondLevelFeatures {
    /// The largest page that an entry can map.
    pub(crate) largest_page: PageSize,
    /// An entry can allow fetches and no reads.
    pub(crate) has_execute_only: bool,
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
