//! Stores to guarded pages: configuration space in memory, of a function that has a register to be kept.
//!
//! A plain MOV to an operand that is aligned is carried out as it is, unless it touches a register that is kept: then
//! nothing is written, as when the firmware has locked the register. All else (other instructions that write, operands
//! that are not aligned, page-table entries and stacks there) is refused as an access to the hypervisor's memory is, by
//! a general-protection fault: configuration space in memory is written by MOV alone (PCI Firmware Specification, "Memory
//! Mapped Configuration Space Access"), and the guest gets on, where to skip the instruction would hide the fault. So is a
//! store of several bytes to the vendor's and the device's number, which take no writes: the page begins with them.
//!
//! Between the exit and the look at the instruction another CPU may have changed the code. What is then carried out is
//! another store of the guest's own, to the address of the exit, under the same rule.

use super::breakpoint::Breakpoints;
use super::mov_store::{LENGTH_LIMIT, MovStore, NoStore, Source};
use super::{Action, SecondLevelViolation};
use crate::memory::guest::{GuestMemory, GuestView, Intent, Privilege};
use crate::vcpu::{CodeSize, Vcpu};
use hw::Unmapped;
use x86::address::{GuestLinearAddr, GuestPhysAddr};
use x86::event::Event;
use x86::paging::PAGE_BYTES;
use x86::segment::SegmentRegister;

/// The guarded pages of a machine.
pub trait ConfigurationMemory {
    /// Returns whether a store of `width` bytes at `at` touches a register that is kept.
    fn is_kept(&self, at: GuestPhysAddr, width: u8) -> bool;

    /// Stores the lower `width` bytes of `value` at `at`, which is aligned, at once.
    ///
    /// # Errors
    ///
    /// [`Unmapped`]: there is nothing.
    fn store(&self, at: GuestPhysAddr, width: u8, value: u64) -> Result<(), Unmapped>;
}

/// Carries out a store that the second-level tables stopped at a guarded page.
///
/// # Errors
///
/// What the guest takes where the instruction cannot be fetched any more.
// Rare: kept out of the way of the exits that are not.
#[cold]
#[inline(never)]
pub fn handle<V: Vcpu, M: GuestMemory + ?Sized>(
    vcpu: &mut V,
    memory: &M,
    pages: &impl ConfigurationMemory,
    violation: SecondLevelViolation,
) -> Result<Action, Event> {
    let SecondLevelViolation { gpa, is_read, is_fetch, is_walk, .. } = violation;
    if is_read || is_fetch || is_walk || vcpu.is_delivering_event() {
        return Ok(refuse(gpa));
    }
    let Some(store) = fetch(vcpu, memory)?.filter(|store| is_aligned(gpa, store.width)) else {
        return Ok(refuse(gpa));
    };
    if pages.is_kept(gpa, store.width) {
        log::warn!("the guest's store to the PCI register at {:#x} is left out: it is kept", gpa.get());
    } else if pages.store(gpa, store.width, value(vcpu, store.source)).is_err() {
        return Ok(refuse(gpa));
    }
    if let Some(at) = violation.gla {
        let struck = Breakpoints::of(vcpu).on_data(at, store.width.into(), Intent::Write);
        vcpu.strike_breakpoints(struck);
    }
    Ok(Action::AdvanceBy(store.length))
}

/// Returns whether an operand of `width` bytes of which the exit tells `gpa` is aligned. Of one that begins on the page before
/// the exit tells the start of this page, so that there nothing wider than a byte counts as aligned.
fn is_aligned(gpa: GuestPhysAddr, width: u8) -> bool {
    gpa.get().is_multiple_of(width.into()) && (width == 1 || gpa.page_offset() != 0)
}

fn refuse(gpa: GuestPhysAddr) -> Action {
    log::warn!("the guest writes PCI configuration space at {:#x} by other than an aligned MOV", gpa.get());
    Action::Inject(Event::GP0)
}

/// Returns the store that the guest is at; `None` where it is at another instruction.
fn fetch<V: Vcpu, M: GuestMemory + ?Sized>(vcpu: &V, memory: &M) -> Result<Option<MovStore>, Event> {
    let (view, privilege, code) = (GuestView::new(vcpu, memory), Privilege::of(vcpu), vcpu.code_size());
    let at = match code {
        CodeSize::Bits64 => vcpu.rip(),
        _ => vcpu.segment(SegmentRegister::Cs).base.wrapping_add(vcpu.rip()) & 0xffff_ffff,
    };
    let at = GuestLinearAddr::new(at);
    let mut bytes = [0; LENGTH_LIMIT];
    // What lies on the next page may not be code, and is fetched only where the instruction goes on there.
    let first = LENGTH_LIMIT.min(PAGE_BYTES - at.page_offset());
    view.fetch(at, &mut bytes[..first], privilege)?;
    let mut store = MovStore::decode(&bytes[..first], code);
    if store == Err(NoStore::Incomplete) {
        view.fetch(at, &mut bytes, privilege)?;
        store = MovStore::decode(&bytes, code);
    }
    Ok(store.ok())
}

fn value<V: Vcpu>(vcpu: &V, source: Source) -> u64 {
    let register = |number: u8| match number {
        4 => vcpu.rsp(),
        _ => vcpu.registers().0[usize::from(number & 0xf)],
    };
    match source {
        Source::Register(number) => register(number),
        Source::HighByte(number) => register(number) >> 8,
        Source::Immediate(value) => value,
    }
}

#[cfg(test)]
#[path = "configuration_store_tests.rs"]
mod tests;
