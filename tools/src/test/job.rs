//! One test on a machine.

use crate::backtrace;
use crate::run::RunOptions;
use crate::verdict::Outcome;
use anyhow::Result;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What a test does; the folder is for its disks and consoles.
pub(super) type Work = Box<dyn Fn(&Path) -> Result<Verdict> + Send>;

/// A test that has not been run yet.
pub(super) struct Job {
    /// Name, as in `docs/behaviours.md`.
    pub(super) name: String,
    /// Word of [`super::Filter`] for tests like it.
    pub(super) group: &'static str,
    /// Rough length in host seconds; long ones start first.
    pub(super) seconds: u32,
    /// The bare guest and the hypapp that are all that has to be built for it; `None` where it is more.
    pub(super) needs: Option<Needs>,
    /// The test.
    pub(super) work: Work,
}

/// What a test of a bare guest runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Needs {
    pub(super) guest: String,
    pub(super) hypapp: String,
}

/// What came of a test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// What had to be shown was shown.
    Passed,
    /// It could not show anything, and why.
    Skipped(String),
    /// It was shown that something is wrong.
    Failed {
        /// In one line.
        why: String,
        /// The last console lines.
        lines: Vec<String>,
    },
}

/// A test that has been run.
#[derive(Clone, Debug)]
pub(super) struct Finished {
    pub(super) name: String,
    pub(super) verdict: Verdict,
    pub(super) elapsed: Duration,
    /// Disks and consoles, kept where the test failed.
    pub(super) folder: Option<PathBuf>,
}

impl Verdict {
    /// Failure before any machine ran.
    pub(super) fn failed(why: impl ToString) -> Self {
        Self::Failed { why: why.to_string(), lines: Vec::new() }
    }

    /// Failure for the reason `why`, or none; with the consoles of `outcome`.
    pub(super) fn of(why: Option<String>, outcome: &Outcome, options: &RunOptions) -> Self {
        let Some(why) = why else { return Self::Passed };
        let mut lines: Vec<String> =
            outcome.last_lines().iter().map(|(origin, line)| format!("{origin} {line}")).collect();
        lines.extend(backtrace::of(outcome, &options.hypapp));
        Self::Failed { why, lines }
    }
}
