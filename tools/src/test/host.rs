//! Tests that need no machine: Cargo's and the house rules.

use super::job::Verdict;
use super::report::Report;
use crate::lint;
use crate::progress;
use crate::toolchain::cargo;
use anyhow::Result;
use std::time::Instant;

/// Format, lints, documentation and house rules.
pub(super) fn lint() -> Result<Verdict> {
    lint::run().map(|()| Verdict::Passed)
}

/// Host tests of every package that has any; each one counts.
pub(super) fn unit(report: &mut Report) {
    let start = Instant::now();
    match cargo_test() {
        Ok(tests) => {
            for name in &tests.failed {
                report.add(name, Verdict::failed("see above"), start.elapsed());
            }
            report.add_many("unit", tests.passed, start.elapsed());
        }
        Err(why) => report.add("unit", Verdict::failed(format!("{why:#}")), start.elapsed()),
    }
}

/// What `cargo test` said.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tests {
    passed: usize,
    failed: Vec<String>,
}

fn cargo_test() -> Result<Tests> {
    let mut command = cargo();
    // The harness is to be quiet, not Cargo.
    let (is_success, text) = progress::try_cargo(
        "running the host tests",
        command.args(["test", "--no-fail-fast", "--", "--quiet"]),
    )?;
    let tests = Tests::of_output(&text);
    if !is_success {
        print!("{text}");
        anyhow::ensure!(!tests.failed.is_empty(), "cargo test failed");
    }
    Ok(tests)
}

impl Tests {
    /// Reads lines `test result: ok. 48 passed; 0 failed; ...` and `---- NAME stdout ----`.
    fn of_output(text: &str) -> Self {
        let mut tests = Self::default();
        for line in text.lines() {
            if let Some(result) = line.strip_prefix("test result: ") {
                let passed = result.split_whitespace().zip(result.split_whitespace().skip(1));
                let count =
                    passed.filter(|(_, word)| *word == "passed;").find_map(|(n, _)| n.parse::<usize>().ok());
                tests.passed += count.unwrap_or(0);
            } else if let Some(name) =
                line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----"))
            {
                tests.failed.push(name.to_owned());
            }
        }
        tests
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_package_counts() {
        let text = "\nrunning 2 tests\n..\ntest result: ok. 2 passed; 0 failed; 0 ignored; finished in 0.00s\n\
                    \nrunning 3 tests\n.F.\nfailures:\n\n---- exit::tests::stops stdout ----\nwhy\n\n\
                    test result: FAILED. 2 passed; 1 failed; 0 ignored; finished in 0.00s\n";
        assert_eq!(Tests::of_output(text), Tests { passed: 4, failed: vec!["exit::tests::stops".into()] });
    }
}
