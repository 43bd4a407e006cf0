//! Physical pointers that the processor follows past the second-level tables: where it may have them.
//!
//! The local APIC's page stands before memory for every access of its CPU, the hypervisor's too, so it never lies over
//! memory, which is all that a hypapp hides or the hypervisor copies, nor over a page that is guarded. The table of the hardware feedback interface is
//! written by the processor: it may be memory, but none that is hidden or protected, nor is it afterwards.

use crate::memory::range::GuestRange;
use crate::memory::second_level::SecondLevel;
use hw::{Msrs, PhysMemory};
use spin::Mutex;
use x86::address::GuestPhysAddr;
use x86::apic::ApicBase;
use x86::msr::{HW_FEEDBACK_PTR_VALID, Msr};
use x86::paging::{PAGE_SIZE, TableFormat};

/// The address in an MSR that names a page.
const ADDRESS: u64 = 0xf_ffff_ffff_f000;

/// The guest's physical memory, as far as such pointers matter.
pub trait Physical {
    /// Returns whether some page of `range` is memory, the guest's or the hypervisor's, or a page of which stores are
    /// looked at.
    fn touches_memory(&self, range: GuestRange) -> bool;
    /// Lends `range` to the processor, which writes it from now on; returns false where it must not.
    fn lend(&self, range: GuestRange) -> bool;
}

/// The firmware left the local APIC over memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApicOverMemory;

/// Returns whether `value` of IA32_APIC_BASE leaves memory alone.
pub(super) fn is_apic_base_allowed(value: u64, physical: &impl Physical) -> bool {
    let range = range(value, PAGE_SIZE);
    range.is_some_and(|range| !physical.touches_memory(range))
}

/// Returns whether the processor may have `value` of IA32_HW_FEEDBACK_PTR, with a table of `bytes`; from then on it may
/// write.
pub(super) fn is_feedback_allowed(value: u64, bytes: u64, physical: &impl Physical) -> bool {
    value & HW_FEEDBACK_PTR_VALID == 0 || range(value, bytes).is_some_and(|range| physical.lend(range))
}

/// Takes note of the pointers that the firmware left in the executing processor.
///
/// # Errors
///
/// [`ApicOverMemory`].
// UNSAFETY: writes IA32_HW_FEEDBACK_PTR.
#[expect(unsafe_code, reason = "IA32_HW_FEEDBACK_PTR")]
pub fn adopt(msrs: &impl Msrs, bytes: u64, physical: &impl Physical) -> Result<(), ApicOverMemory> {
    let read = |msr| msrs.read(msr).unwrap_or(0);
    let base = read(Msr::IA32_APIC_BASE);
    if base & ApicBase::ENABLE.bits() != 0 && !is_apic_base_allowed(base, physical) {
        return Err(ApicOverMemory);
    }
    if bytes != 0 && !is_feedback_allowed(read(Msr::IA32_HW_FEEDBACK_PTR), bytes, physical) {
        // Zero fits.
        // SAFETY: it names no table.
        let _ = unsafe { msrs.write_trusted(Msr::IA32_HW_FEEDBACK_PTR, 0) };
    }
    Ok(())
}

fn range(value: u64, bytes: u64) -> Option<GuestRange> {
    GuestRange::new(GuestPhysAddr::new(value & ADDRESS), bytes).ok()
}

impl<M: PhysMemory, F: TableFormat> Physical for Mutex<SecondLevel<M, F>> {
    fn touches_memory(&self, range: GuestRange) -> bool {
        let second_level = self.lock();
        second_level.policy().touches_memory(range) || second_level.policy().is_guarded(range)
    }

    fn lend(&self, range: GuestRange) -> bool {
        self.lock().lend(range).is_ok()
    }
}

/// Memory from 1 MiB on, of which nothing is lent but what is told.
#[cfg(test)]
#[derive(Debug)]
pub(super) struct FakePhysical {
    /// What the processor may not write.
    pub(super) kept: GuestRange,
    /// What it was lent.
    pub(super) lent: core::cell::RefCell<Vec<GuestRange>>,
}

#[cfg(test)]
impl FakePhysical {
    pub(super) fn new(kept: GuestRange) -> Self {
        Self { kept, lent: core::cell::RefCell::new(Vec::new()) }
    }
}

#[cfg(test)]
impl Physical for FakePhysical {
    fn touches_memory(&self, range: GuestRange) -> bool {
        let memory = GuestRange::between(0x10_0000, 0x8000_0000);
        memory.intersection(range).is_some()
    }

    fn lend(&self, range: GuestRange) -> bool {
        let is_allowed = self.kept.intersection(range).is_none();
        if is_allowed {
            self.lent.borrow_mut().push(range);
        }
        is_allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hw::sim::SimMsrs;

    const KEPT: GuestRange = GuestRange::between(0x20_0000, 0x20_1000);

    #[test]
    fn the_apic_lies_over_no_memory() {
        let physical = FakePhysical::new(KEPT);
        let is_allowed = |value| is_apic_base_allowed(value, &physical);
        for base in [0xfee0_0900, 0x8000_0900, 0xf_f900, 0x900] {
            assert!(is_allowed(base), "{base:#x}");
        }
        for base in [0x10_0900, 0x20_0900, 0x7fff_f900] {
            assert!(!is_allowed(base), "{base:#x}");
        }
    }

    #[test]
    fn a_table_is_lent_whole_once_the_processor_uses_it() {
        let physical = FakePhysical::new(KEPT);
        let is_allowed = |value| is_feedback_allowed(value, 0x2000, &physical);
        // Not used yet, whatever it names.
        assert!(is_allowed(0x20_0000));
        assert!(physical.lent.borrow().is_empty());
        for refused in [0x1f_f001, 0x20_0001] {
            assert!(!is_allowed(refused), "{refused:#x}");
        }
        assert!(is_allowed(0x1f_e001) && is_allowed(0x20_1001));
        let lent = [0x1f_e000, 0x20_1000].map(|start| GuestRange::between(start, start + 0x2000));
        assert_eq!(*physical.lent.borrow(), lent);
    }

    #[test]
    fn what_the_firmware_left_is_lent_or_ended() {
        let physical = FakePhysical::new(KEPT);
        let left = |base, pointer| {
            let msrs = SimMsrs::new([(Msr::IA32_APIC_BASE, base), (Msr::IA32_HW_FEEDBACK_PTR, pointer)]);
            (adopt(&msrs, 0x1000, &physical), msrs.read(Msr::IA32_HW_FEEDBACK_PTR))
        };
        assert_eq!(left(0xfee0_0900, 0x30_0001), (Ok(()), Ok(0x30_0001)));
        assert_eq!(*physical.lent.borrow(), [GuestRange::between(0x30_0000, 0x30_1000)]);
        assert_eq!(left(0xfee0_0900, 0x20_0001), (Ok(()), Ok(0)));
        assert_eq!(left(0x20_0900, 0).0, Err(ApicOverMemory));
        assert_eq!(left(0x20_0100, 0).0, Ok(()), "an APIC that is off");
    }
}
