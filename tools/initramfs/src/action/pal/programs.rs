//! The original's programs, which check themselves.

use super::super::Failure;
use std::process::Command;

const MAIN: &str = "Without PAL:\n 0x3 = *ptr\n 0xa = my_pal(0x7, ptr)\n 0x4 = *ptr\n\
                    With PAL:\n 0x3 = *ptr\n 0xa = my_pal(0x7, ptr)\n 0x4 = *ptr\n";

/// Each with what it is told and what it prints.
pub(in crate::action) const PROGRAMS: [(&str, &[&str], &str); 3] = [
    ("test", &["5"], "0 = vmcall(TV_HC_TEST, 5)\n"),
    ("main", &["7", "3"], MAIN),
    ("test_args", &["7", "7", "7"], ".....................\nTest pass\n"),
];

/// Runs each in the versions of the word sizes `sizes`, and compares what it prints.
pub(super) fn perform(sizes: &[&str]) -> Result<(), Failure> {
    for size in sizes {
        for (program, arguments, expected) in PROGRAMS {
            run(program, size, arguments, expected)?;
        }
    }
    Ok(())
}

/// SHA-256 of 7 in four bytes, as `sha256sum` gives it.
const DIGEST: &str = "[e8613f5a, 5bc9f9fe, eda32a8e, 7c80b69d, d4878e47, b6a91723, fb15eb84, 236b6a2b]\n";

/// Runs the examples of the SDK's README, and what tries the rest of its C header.
pub(super) fn readme() -> Result<(), Failure> {
    run("example_rust", "", &[], "1234: 0, 4711: 1\n")?;
    run("example_crates", "", &[], DIGEST)?;
    run("example_c", "", &[], "inside: 10\n")?;
    run("test_c", "", &[], "line 0, 42 and 42\n")
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
