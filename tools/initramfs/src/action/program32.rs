//! A 32-bit program, which prints its own line.

use super::{Failure, child};

/// Runs the program; it checks its own instructions and exits with 0.
pub(super) fn perform() -> Result<(), Failure> {
    child::wait(child::start(|| child::exec(&[c"/bin/program32"]))?)
}
