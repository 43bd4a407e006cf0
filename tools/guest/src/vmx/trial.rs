//! A snippet that a guest of this guest executes, in any mode of long mode.

use spin::Mutex;

use super::Guest;
use crate::{Fault, Mode, Regs, Snippet, run};

static TRIAL: Mutex<Option<Trial>> = Mutex::new(None);

#[derive(Clone, Copy)]
struct Trial {
    mode: Mode,
    code: Snippet,
    regs: Regs,
    result: Option<Result<(), Fault>>,
}

/// Has the next entry of `guest` execute `code` in `mode` with `regs`; then the guest ends.
pub fn begin(guest: &mut Guest, mode: Mode, code: Snippet, regs: Regs) {
    *TRIAL.lock() = Some(Trial { mode, code, regs, result: None });
    guest.call(perform);
}

/// What came of the snippet of a guest that has ended: how it ended, and the registers then.
pub fn result() -> (Result<(), Fault>, Regs) {
    let trial = TRIAL.lock().take();
    trial.and_then(|trial| Some((trial.result?, trial.regs))).unwrap_or((Err(NOT_RUN), Regs::default()))
}

/// What [`result`] tells of a guest that did not end.
pub const NOT_RUN: Fault = Fault { vector: 0xff, error_code: 0 };

/// Executes the snippet; what [`begin`] has a guest call.
pub extern "C" fn perform() {
    let trial = *TRIAL.lock();
    let Some(mut trial) = trial else { return };
    trial.result = Some(run(trial.mode, trial.code, &mut trial.regs));
    *TRIAL.lock() = Some(trial);
}
