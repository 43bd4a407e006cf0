//! Random bytes of the microTPM, which only a PAL gets.

use super::super::Failure;
use super::{RANDOM, describe, ensure, with_keeper};
use std::collections::BTreeSet;
use xmhf_pal::microtpm;
use xmhf_pal::trustvisor::status::Status;

const DRAWS: usize = 8;

/// Draws inside a PAL, where no two numbers are the same, and outside, where it is refused.
pub(super) fn perform() -> Result<(), Failure> {
    with_keeper(|keeper| {
        let mut seen = BTreeSet::new();
        for _ in 0..DRAWS {
            let mut words = [0; 2];
            let status = keeper.call(RANDOM, &mut words).map_err(describe)?;
            ensure(status == 0, format!("the PAL is answered with status {status}"))?;
            seen.extend(words);
        }
        ensure(seen.len() == 2 * DRAWS && !seen.contains(&0), format!("drawn: {seen:x?}"))
    })?;
    let outside = microtpm::random(&mut [0; 16]);
    ensure(outside == Err(Status::NOT_IN_PAL), format!("outside a PAL: {outside:?}"))
}
