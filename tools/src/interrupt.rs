//! Ctrl-C: what runs is ended in order, so that nothing is left behind and what is known so far is told.

use anyhow::{Context, Result};
use std::sync::atomic::{AtomicBool, Ordering};

/// Exit code of a program that ended on an interrupt, by the shells' custom.
pub const EXIT_CODE: u8 = 130;

static REQUESTED: AtomicBool = AtomicBool::new(false);

/// Has Ctrl-C, and a request to terminate, ask for an end rather than end the runner. The second one ends it.
///
/// # Errors
///
/// The system takes no handler.
pub fn catch() -> Result<()> {
    let handler = || {
        if REQUESTED.swap(true, Ordering::Relaxed) {
            std::process::exit(EXIT_CODE.into());
        }
    };
    ctrlc::set_handler(handler).context("catching Ctrl-C")
}

/// Whether the user asked for an end.
#[must_use]
pub fn is_requested() -> bool {
    REQUESTED.load(Ordering::Relaxed)
}
