//! What init can be asked to do, one action a file.

mod child;
mod forkexec;
mod load;
mod offline;
mod program32;
mod reboot;

use crate::machine::Machine;

/// Why an action failed, for a person.
type Failure = String;

/// Performs the action called `name`.
///
/// # Errors
///
/// What went wrong, in one line.
pub(crate) fn perform(name: &str, machine: &Machine) -> Result<(), Failure> {
    match name {
        "forkexec" => forkexec::perform(),
        "load" => load::perform(machine),
        "offline" => offline::perform(machine),
        "program32" => program32::perform(),
        "reboot" => reboot::perform(),
        _ => Err("no such action".into()),
    }
}
