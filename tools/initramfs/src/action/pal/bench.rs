//! What PALs cost, in ticks.

use super::super::Failure;
use std::process::{Command, Stdio};

/// Runs the program that measures, alone and beside 1,000 PALs, and shows its lines.
pub(super) fn perform() -> Result<(), Failure> {
    for others in ["0", "999"] {
        let output = Command::new("/bin/palbench64").arg(others).output();
        let output = output.map_err(|why| format!("/bin/palbench64: {why}"))?;
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            println!("xmhf-guest: {line}");
        }
        if !output.status.success() {
            return Err(format!("/bin/palbench64 {others} ended with {}", output.status));
        }
    }
    let start = crate::clock::ticks();
    let status = Command::new("/bin/test_args64").args(["7", "7", "7"]).stdout(Stdio::null()).status();
    let ticks = crate::clock::ticks() - start;
    match status {
        Ok(status) if status.success() => println!("xmhf-guest: bench test_args64_777 ticks={ticks}"),
        other => return Err(format!("/bin/test_args64: {other:?}")),
    }
    Ok(())
}
