//! What init can be asked to do, one action a file.

mod child;
mod forkexec;
mod helloworld;
mod kvm;
mod load;
mod offline;
mod pal;
mod program32;
mod quiesce;
mod reboot;
mod shell;
mod suspend;
mod verify;
mod vmcall;
mod xen;

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
        "exec" => shell::exec(),
        "forkexec" => forkexec::perform(),
        "helloworld" => helloworld::perform(),
        "kvm" => kvm::perform(machine),
        "load" => load::perform(machine),
        "offline" => offline::perform(machine),
        "program32" => program32::perform(),
        "quiesce" => quiesce::perform(machine),
        "reboot" => reboot::perform(),
        "shell" => shell::perform(),
        "suspend" => suspend::perform(machine),
        "verify" => verify::perform(),
        "xen" => xen::perform(),
        _ => name.strip_prefix("pal_").and_then(pal::perform).unwrap_or(Err("no such action".into())),
    }
}
