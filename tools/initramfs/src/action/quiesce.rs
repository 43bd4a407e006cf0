//! The hypapp `quiesce`, which stops all other CPUs for a moment, while they are at work.

use super::vmcall::{Registers, vmcall};
use super::{Failure, child, load};
use crate::machine::Machine;

const SELECTOR: u64 = 0x4455_0002;
const CALLS: u64 = 50;

/// Calls it many times, with fork and exec on every CPU meanwhile.
pub(super) fn perform(machine: &Machine) -> Result<(), Failure> {
    let caller = child::start(|| i32::from(!(1..=CALLS).all(all_stand_still)))?;
    let work = load::perform(machine);
    child::wait(caller).map_err(|why| format!("a CPU moved, or the hypapp did not count: {why}"))?;
    work
}

/// Whether the call with this number is answered as it should be.
fn all_stand_still(number: u64) -> bool {
    let answer = vmcall(Registers { rbx: SELECTOR, ..Registers::default() });
    answer.rax == 0 && answer.rcx == number
}
