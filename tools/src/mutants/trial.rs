//! Whether a test notices a change, by one compiled package that has them all.
//!
//! First each test runs by itself without any change and leaves the functions that it reaches. For a change, only the
//! tests that reach its function run, the quickest first: no other could notice it.

use super::outcomes::Outcome;
use super::tree::{Built, Tree};
use anyhow::{Context, Result, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// Memory that a test may use, in KiB.
const MEMORY: u32 = 8 << 20;
/// Tests of one process take this long together, times ten from one process to the next.
const FIRST_ROUND: Duration = Duration::from_millis(100);

/// One test, by itself.
#[derive(Clone, Debug)]
struct Test {
    binary: usize,
    name: String,
    time: Duration,
    reached: BTreeSet<u32>,
}

/// The tests of a package.
#[derive(Debug)]
pub(super) struct Trial<'a> {
    tree: &'a Tree,
    built: &'a Built,
    /// The quickest first.
    tests: Vec<Test>,
}

impl<'a> Trial<'a> {
    /// Runs each test once.
    pub(super) fn new(tree: &'a Tree, built: &'a Built) -> Result<Self> {
        let mut trial = Self { tree, built, tests: Vec::new() };
        let mut tests = Vec::new();
        for binary in 0..built.binaries.len() {
            let list = trial.run(binary, &["--list", "--format=terse"], 0, Duration::MAX, None)?;
            let list = String::from_utf8_lossy(&list.stdout).into_owned();
            for name in list.lines().filter_map(|line| line.strip_suffix(": test")) {
                tests.extend(trial.alone(binary, name)?);
            }
        }
        tests.sort_by_key(|test| test.time);
        trial.tests = tests;
        Ok(trial)
    }

    /// Runs the test called `name` without any change; nothing where it is ignored.
    fn alone(&self, binary: usize, name: &str) -> Result<Option<Test>> {
        let left = self.tree.root().join("target/reached");
        fs::remove_file(&left).or_else(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        })?;
        let start = Instant::now();
        let output = self.run(binary, &["--exact", name], 0, Duration::MAX, Some(&left))?;
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "{name} fails without any change:\n{text}");
        let reached = fs::read_to_string(&left).unwrap_or_default();
        let reached = reached.lines().map(str::parse).collect::<Result<_, _>>()?;
        let is_run = text.contains("test result: ok. 1 passed");
        let time = start.elapsed();
        Ok(is_run.then(|| Test { binary, name: name.to_owned(), time, reached }))
    }

    /// Tries the change with this number, in the function whose first number is `first`.
    pub(super) fn outcome(&self, number: u32, first: u32) -> Result<Outcome> {
        let mut limit = FIRST_ROUND;
        let mut tests = self.tests.iter().filter(|test| test.reached.contains(&first)).peekable();
        while tests.peek().is_some() {
            let mut round: BTreeMap<usize, Vec<&str>> = BTreeMap::new();
            let mut time = Duration::ZERO;
            while let Some(test) = tests.next_if(|test| time.is_zero() || time + test.time <= limit) {
                time += test.time;
                round.entry(test.binary).or_default().push(&test.name);
            }
            limit *= 10;
            for (binary, names) in round {
                let arguments: Vec<&str> = std::iter::once("--exact").chain(names).collect();
                let status = self.run(binary, &arguments, number, time, None)?.status;
                if !status.success() {
                    let is_killed = status.signal() == Some(9) || status.code() == Some(128 + 9);
                    return Ok(if is_killed { Outcome::Timeout } else { Outcome::Caught });
                }
            }
        }
        Ok(Outcome::Missed)
    }

    /// Runs a test binary, with two seconds and ten times `usual` of processor time, and a bound for what only waits.
    fn run(
        &self,
        binary: usize,
        arguments: &[&str],
        number: u32,
        usual: Duration,
        reached: Option<&Path>,
    ) -> Result<Output> {
        let seconds = usual.as_secs().saturating_mul(10).saturating_add(2).min(3600);
        let mut command = Command::new("timeout");
        self.tree.adapt(&mut command);
        let limits = format!("ulimit -t {seconds} -v {MEMORY}; exec \"$0\" \"$@\"");
        command
            .args(["--signal=KILL", &format!("{}", 60 + 4 * seconds), "sh", "-c", &limits])
            .arg(&self.built.binaries[binary])
            // The first failure is enough.
            .args(["-Zunstable-options", "--fail-fast", "--test-threads=1"])
            .args(arguments)
            .env("RUSTC_BOOTSTRAP", "1")
            // A function holds all its changes, and its frame what they keep.
            .env("RUST_MIN_STACK", "268435456")
            .env("XMHF_CHANGE", number.to_string())
            .env("CARGO_MANIFEST_DIR", self.tree.package_folder())
            .current_dir(self.tree.package_folder());
        reached.iter().for_each(|path| _ = command.env("XMHF_REACHED", path));
        command.output().context("cannot start timeout")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    /// Two tests that reach the functions of changes 1 and 5; changes 2 to 4 are noticed by `quick`, by `slow` and by
    /// its endlessness.
    const BINARY: &str = r#"#!/bin/sh
        case "$*" in
            *--list*) echo "quick: test"; echo "slow: test"; echo "ignored: test"; exit ;;
        esac
        [ -z "$XMHF_REACHED" ] || echo 1 >>"$XMHF_REACHED"
        for name; do
            case "$name $XMHF_CHANGE" in
                "quick 2") exit 101 ;;
                "slow 3") exit 101 ;;
                "slow 4") kill -KILL $$ ;;
                "slow "*) [ -z "$XMHF_REACHED" ] || echo 5 >>"$XMHF_REACHED"; sleep 0.2 ;;
                "ignored "*) echo "test result: ok. 0 passed"; exit ;;
            esac
        done
        echo "test result: ok. 1 passed"
    "#;

    #[test]
    fn only_tests_that_reach_a_function_run_for_its_changes() {
        let folder = tempfile::tempdir().unwrap();
        let binary = folder.path().join("binary");
        fs::create_dir(folder.path().join("target")).unwrap();
        fs::write(&binary, BINARY).unwrap();
        fs::set_permissions(&binary, fs::Permissions::from_mode(0o700)).unwrap();
        let tree = Tree::at(folder.path());
        let built = Built::of(vec![binary]);
        let trial = Trial::new(&tree, &built).unwrap();
        let names: Vec<&str> = trial.tests.iter().map(|test| test.name.as_str()).collect();
        assert_eq!(names, ["quick", "slow"]);
        let outcomes = [2, 3, 4, 1].map(|number| trial.outcome(number, 1).unwrap());
        assert_eq!(outcomes, [Outcome::Caught, Outcome::Caught, Outcome::Timeout, Outcome::Missed]);
        // `quick` does not reach it.
        assert_eq!(
            [2, 3].map(|number| trial.outcome(number, 5).unwrap()),
            [Outcome::Missed, Outcome::Caught]
        );
    }
}
