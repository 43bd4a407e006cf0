//! A PAL's update opens what the PAL has sealed; a version that is outlived opens nothing of the update's.

use crate::{Wrong, ensure};
use commands::{ADD, FAILED, LOAD, SAVE};
use xmhf_pal::trustvisor::status::Status;

#[path = "../../../pal/till_commands.rs"]
mod commands;

xmhf_pal::pal! {
    /// Version 1; see its source, in `pal`.
    struct Till = xmhf_pal::image!("till");
    fn till(command: u32, number: u32, bytes: &mut [u8; 256]) -> usize;
}

xmhf_pal::pal! {
    /// Version 2.
    struct Till2 = xmhf_pal::image!("till2");
    fn till(command: u32, number: u32, bytes: &mut [u8; 256]) -> usize;
}

pub(crate) fn updates() -> Result<(), Wrong> {
    let (mut bytes, mut later) = ([0; 256], [0; 256]);
    let till = Till::register()?;
    ensure(till.call(ADD, 40, &mut bytes)? == 40, "a till adds")?;
    ensure(till.call(SAVE, 2, &mut bytes)? & FAILED != 0, "a till seals for versions above its own alone")?;
    let length = till.call(SAVE, 1, &mut bytes)?;
    ensure(length & FAILED == 0, "a signed PAL does not seal for its signer")?;
    till.unregister()?;

    let till = Till2::register()?;
    let number = u32::try_from(length).unwrap_or(0);
    ensure(till.call(LOAD, number, &mut bytes)? == 0, "an update does not open what was sealed before it")?;
    ensure(till.call(ADD, 2, &mut bytes)? == 42, "the update has another sum")?;
    let length = till.call(SAVE, 2, &mut later)?;
    till.unregister()?;
    tell!("A signed PAL's update, which is other code, opens what the PAL sealed, and adds to it.");

    let till = Till::register()?;
    let number = u32::try_from(length).unwrap_or(0);
    let refused = FAILED | usize::try_from(Status::OTHER.0).unwrap_or(0);
    ensure(till.call(LOAD, number, &mut later)? == refused, "an old version opens its update's data")?;
    ensure(till.call(ADD, 0, &mut bytes)? == 0, "an old version has its update's sum")?;
    tell!("What the update seals for itself and later ones, the old version does not open.");
    Ok(till.unregister()?)
}
