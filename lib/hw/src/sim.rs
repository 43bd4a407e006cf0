//! A fake machine, for host tests: each part implements the trait of the same noun and records what was done.
//!
//! A test makes the parts it needs, gives them by reference to the code under test, and then reads their
//! records. [`SimMemory`] keeps every write in order, so that a test can look at each state in between.

mod memory;
mod registers;

pub use memory::{SimMemory, Write};
pub use registers::{
    PortWrite, SimCpuid, SimMsrs, SimPorts, SimProcessor, SimSpeculation, SimVmcs, SimXcrs, SpeculationAct,
};
