//! A PAL that seals, shares and quotes, see `tools/pal/demo`; what it prints is for the runner.

use super::super::Failure;
use std::fs;
use std::process::Command;

/// Runs the program of this word size, with the number that the command line has for it.
pub(super) fn perform(size: &str) -> Result<(), Failure> {
    let line = fs::read_to_string("/proc/cmdline").map_err(|why| format!("/proc/cmdline: {why}"))?;
    let nonce = line.split_whitespace().find_map(|word| word.strip_prefix("xmhf.nonce="));
    let path = format!("/bin/notary{size}");
    match Command::new(&path).args(nonce).status() {
        Ok(status) if status.success() => Ok(()),
        other => Err(format!("{path}: {other:?}")),
    }
}
