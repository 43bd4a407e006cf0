//! Compartments: software of the guest's that runs with its own memory alone, out of reach of the rest of the guest.
//!
//! A hypapp fills the executing CPU's compartment with pages and has the guest's processor enter it. All that follows
//! comes to [`Hypapp::compartment_exit`](crate::hypapp::Hypapp::compartment_exit), but CPUID and hypercalls, which come
//! as ever. Only the executing CPU is concerned: others go on, and nothing of theirs is flushed.

pub use crate::exit::CompartmentExit;
pub use crate::memory::compartment_tables::{Mode, PAGES_LIMIT, Page, Roots, frames_needed};

use super::{machine, no_frames};
use crate::machine::{self as hypervisor, RegionMemory, SECOND_LEVEL};
use crate::memory::compartment_tables::{FillError, STOCK_LIMIT, TooSmall};
use crate::memory::second_level::{ProtectError, RESERVE};
use crate::smp::{cpus, percpu, shootdown};
use spin::Once;
use x86::paging::PAGE_SIZE;

/// Most frames that are taken at a time: each is zeroed.
const RESERVED_AT_ONCE: usize = 16;
/// Frames that each CPU's compartment can have however many CPUs there are.
const FRAMES_AT_LEAST: usize = 32;

/// Most frames that each CPU's compartment can have: its share of a quarter of those that there were at first, for it
/// keeps what it has.
static FRAMES_LIMIT: Once<usize> = Once::new();

fn frames_limit() -> usize {
    let share = || SECOND_LEVEL.lock().frames().available() / 4 / cpus::all().len();
    *FRAMES_LIMIT.call_once(|| share().clamp(FRAMES_AT_LEAST, STOCK_LIMIT))
}

/// Makes sure, by steps, that every CPU's compartment can be filled with what needs `frames` frames ([`frames_needed`]).
/// Returns whether they all can; else it is to be called again.
///
/// # Errors
///
/// [`ProtectError::Exhausted`].
pub fn reserve(frames: usize) -> Result<bool, ProtectError> {
    if frames > frames_limit() {
        return Err(ProtectError::Exhausted);
    }
    grow(frames).or_else(|_| {
        // Tables of pages that were covered once may have taken the frames; misses fill what is needed.
        let flush = SECOND_LEVEL.lock().drop_tables();
        shootdown::flush(flush);
        grow(frames)
    })
}

fn grow(frames: usize) -> Result<bool, ProtectError> {
    let mut room = RESERVED_AT_ONCE;
    for cpu in cpus::all() {
        let mut compartment = cpu.compartment.lock();
        let step = frames.min(compartment.stock() + room);
        room -= step.saturating_sub(compartment.stock());
        compartment.grow(&RegionMemory, step, || {
            let mut second_level = SECOND_LEVEL.lock();
            let frames = second_level.frames();
            if frames.available() <= RESERVE {
                return Err(no_frames());
            }
            Ok(frames.allocate(&RegionMemory)?)
        })?;
        if step < frames {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Fills the executing CPU's compartment with what `pages` gives, unless it is filled for `serial` already. A serial
/// stands for the same pages and mode for ever; 0 is none.
/// `pages` itself asks for no compartment: this one is locked.
///
/// # Errors
///
/// [`ProtectError::Exhausted`] where not enough was reserved, [`ProtectError::HypervisorMemory`] where a page is of that.
pub fn prepare<P: IntoIterator<Item = Page>>(
    serial: u64,
    mode: Mode,
    pages: impl FnOnce() -> P,
) -> Result<Roots, ProtectError> {
    let mut compartment = percpu::current().compartment.lock();
    if let Some(roots) = compartment.roots(serial) {
        return Ok(roots);
    }
    let roots = compartment.fill(&RegionMemory, serial, mode, pages(), |frame| {
        !hypervisor::region().overlaps(frame.get(), PAGE_SIZE)
    })?;
    // After the fill, before the next entry: what this CPU has cached is of the compartment before.
    machine().vendor.forget_compartment(&roots);
    Ok(roots)
}

/// Continues the executing CPU's guest in its compartment, for at most `ticks` of the time-stamp counter.
///
/// There it is without interrupts, system calls, descriptor tables, breakpoints, vector and x87 registers. The
/// general registers, RIP and RSP are the hypapp's to set.
///
/// For [`hypercall`](crate::hypapp::Hypapp::hypercall) and
/// [`second_level_violation`](crate::hypapp::Hypapp::second_level_violation): behind other events the core may have
/// the guest's processor change first, of which the compartment would take the change.
pub fn enter(roots: &Roots, ticks: u64) {
    machine().vendor.enter_compartment(roots, ticks);
}

/// Takes the executing CPU's guest out of its compartment, with its processor as it was but for general registers, RIP,
/// RSP and RFLAGS, which are still the compartment's. Nothing happens where it is in none.
pub fn leave() {
    if is_inside() {
        machine().vendor.leave_compartment();
    }
}

/// Returns whether the executing CPU's guest is in its compartment.
#[must_use]
pub fn is_inside() -> bool {
    percpu::current().is_in_compartment()
}

impl From<FillError> for ProtectError {
    fn from(error: FillError) -> Self {
        match error {
            FillError::TooSmall => Self::Exhausted,
            FillError::Foreign => Self::HypervisorMemory,
        }
    }
}

impl From<TooSmall> for ProtectError {
    fn from(_: TooSmall) -> Self {
        Self::Exhausted
    }
}
