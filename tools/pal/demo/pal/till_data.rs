//! What both versions of the till have: a sum, and how it is sealed from one version to the next.

use crate::till_data::commands::{ADD, FAILED, LOAD, SAVE};
use core::sync::atomic::{AtomicU32, Ordering};
use xmhf_pal::microtpm;
use xmhf_pal::trustvisor::status::Status;

#[path = "till_commands.rs"]
mod commands;

static SUM: AtomicU32 = AtomicU32::new(0);

pub(crate) fn answer(command: u32, number: u32, bytes: &mut [u8; 256], add: fn(u32, u32) -> u32) -> usize {
    let answered = match command {
        ADD => {
            let sum = add(SUM.load(Ordering::Relaxed), number);
            SUM.store(sum, Ordering::Relaxed);
            usize::try_from(sum).map_err(|_| Status::BAD_PARAMETER)
        }
        SAVE => microtpm::seal_to_signer(number, &SUM.load(Ordering::Relaxed).to_le_bytes(), bytes),
        LOAD => load(number, bytes),
        _ => Err(Status::BAD_PARAMETER),
    };
    answered.unwrap_or_else(|status| FAILED | usize::try_from(status.0).unwrap_or(0))
}

/// Opens a blob of `length` bytes.
fn load(length: u32, bytes: &[u8; 256]) -> Result<usize, Status> {
    let mut data = [0; 256];
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    let blob = bytes.get(..length).ok_or(Status::BAD_PARAMETER)?;
    let used = microtpm::unseal(blob, &mut data)?;
    let sum = data.first_chunk().filter(|_| used == 4).ok_or(Status::BAD_PARAMETER)?;
    SUM.store(u32::from_le_bytes(*sum), Ordering::Relaxed);
    Ok(0)
}
