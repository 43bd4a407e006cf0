//! The original's programs, which check themselves.

use super::super::Failure;
use std::process::Command;

/// Runs each in the versions of the word sizes `sizes`, and compares what it prints.
pub(super) fn perform(sizes: &[&str]) -> Result<(), Failure> {
    for size in sizes {
        run("test", size, &["5"], "0 = vmcall(TV_HC_TEST, 5)\n")?;
        let block = " 0x3 = *ptr\n 0xa = my_pal(0x7, ptr)\n 0x4 = *ptr\n";
        run("main", size, &["7", "3"], &format!("Without PAL:\n{block}With PAL:\n{block}"))?;
        run("test_args", size, &["7", "7", "7"], ".....................\nTest pass\n")?;
    }
    run("example", "64", &[], "inside: 10\n")
}

fn run(program: &str, size: &str, arguments: &[&str], expected: &str) -> Result<(), Failure> {
    let path = format!("/bin/{program}{size}");
    let output = Command::new(&path).args(arguments).output().map_err(|why| format!("{path}: {why}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    if output.status.success() && text == expected {
        return Ok(());
    }
    Err(format!("{path} ended with {}: {}", output.status, text.replace('\n', "|")))
}
