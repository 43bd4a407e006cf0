//! A hundred processes one after the other, timed.

use super::{Failure, child};
use crate::clock;

/// Starts and awaits a hundred processes and prints the ticks that they took together.
pub(super) fn perform() -> Result<(), Failure> {
    // The first one reads the program into the page cache.
    child::fork_exec_wait()?;
    let start = clock::ticks();
    for _ in 0..100 {
        child::fork_exec_wait()?;
    }
    println!("xmhf-guest: forkexec100 ticks={}", clock::ticks() - start);
    Ok(())
}
