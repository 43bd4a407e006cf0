//! The hypapp `helloworld`, which greets and changes nothing.

use super::vmcall::{Registers, vmcall};
use super::{Failure, child};

/// Calls it from ring 3.
pub(super) fn perform() -> Result<(), Failure> {
    let call = || {
        let registers = Registers { rax: 1, rbx: 2, rcx: 3, rdx: 4 };
        i32::from(vmcall(registers) != registers)
    };
    child::wait(child::start(call)?)
}
