//! What a user of the runner brought: files in `/add` and a command, or a person at the console.

use super::Failure;
use std::process::Command;

const BUSYBOX: &str = "/bin/busybox";
const FOLDER: &str = "/add";
const COMMAND: &str = "/command";

/// Has the shell run the command, in the folder of the files.
pub(super) fn exec() -> Result<(), Failure> {
    install()?;
    run(busybox(&["sh", COMMAND]))
}

/// Gives the console to a shell, until that ends.
pub(super) fn perform() -> Result<(), Failure> {
    install()?;
    // With a terminal of its own, as job control wants it. Whatever the person's last command came to is no failure.
    let _ = run(busybox(&["setsid", BUSYBOX, "cttyhack", BUSYBOX, "sh"]));
    Ok(())
}

/// Gives each of busybox's commands its name in `/bin`.
fn install() -> Result<(), Failure> {
    run(busybox(&["--install", "-s", "/bin"]))
}

fn busybox(arguments: &[&str]) -> Command {
    let mut command = Command::new(BUSYBOX);
    command.args(arguments).current_dir(FOLDER).env("PATH", "/bin:/add").env("HOME", FOLDER);
    command
}

fn run(mut command: Command) -> Result<(), Failure> {
    let status = command.status().map_err(|why| format!("{BUSYBOX}: {why}"))?;
    if status.success() { Ok(()) } else { Err(status.to_string()) }
}
