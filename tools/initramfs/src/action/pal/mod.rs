//! The hypapp `trustvisor`: PALs of processes of ours, and a root that wants to know what they hide.

mod bench;
mod hostile;
mod keep;
mod notary;
mod programs;
mod random;
mod reuse;
mod search;
mod servant;

pub(super) use programs::PROGRAMS;

use super::{Failure, child};
use xmhf_pal::Error;

xmhf_pal::pal! {
    /// Keeps a secret; see its source, in `pal`.
    struct Keeper = xmhf_pal::image!("keeper");
    fn keeper(command: u32, words: &mut [u64; 2]) -> usize;
}

/// Takes the words for the secret, and zeroes them.
const KEEP: u32 = 1;
/// Gives 1 where the words are the secret.
const CHECK: u32 = 2;
/// Gives the number of counted calls before this one.
const COUNT: u32 = 3;
/// Never returns.
const LOOP: u32 = 4;
/// Reads the address in the first word.
const STRAY: u32 = 5;
/// Ends in a panic.
const PANIC: u32 = 6;
/// Takes the first word's number of rounds, and counts.
const WAIT: u32 = 7;
/// Fills the words at random, and gives the status.
const RANDOM: u32 = 8;

/// Performs the action `pal_NAME`, by its name without `pal_`; `None` where there is none.
pub(super) fn perform(name: &str) -> Option<Result<(), Failure>> {
    Some(match name {
        "random" => random::perform(),
        "programs" => programs::perform(&["64", "32"]),
        "programs_l2" => programs::perform(&["64L2"]),
        "notary" => notary::perform("64"),
        "notary32" => notary::perform("32"),
        "readme" => programs::readme(),
        "keep" => keep::perform(&|_| ()),
        "demo" => keep::perform(&|text| println!("xmhf-guest: demo: {text}")),
        "faults" => hostile::faults(),
        "kill" => hostile::kill(),
        "reuse" => reuse::perform(),
        "loop" => hostile::endless(),
        "fork" => hostile::fork(),
        "exec" => hostile::exec(),
        "unmap" => hostile::unmap(),
        "threads" => hostile::threads(),
        "processes" => hostile::processes(),
        "bench" => bench::perform(),
        _ => return None,
    })
}

/// Registers a PAL, does `work` with it, and gives it up.
fn with_keeper(work: impl FnOnce(&Keeper) -> Result<(), Failure>) -> Result<(), Failure> {
    let keeper = Keeper::register().map_err(describe)?;
    work(&keeper)?;
    keeper.unregister().map_err(describe)
}

fn describe(why: Error) -> Failure {
    why.to_string()
}

/// Fails with `what` unless it is so.
fn ensure(is_so: bool, what: impl Into<Failure>) -> Result<(), Failure> {
    if is_so { Ok(()) } else { Err(what.into()) }
}
