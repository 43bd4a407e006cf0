//! What is told of the tests: a line for each as it ends, then the failures, then the count.

use super::job::{Finished, Verdict};
use crate::paths;
use anyhow::Result;
use std::time::{Duration, Instant};

/// All tests that have ended.
#[derive(Debug)]
pub(super) struct Report {
    finished: Vec<Finished>,
    /// Tests inside one of [`Self::finished`], beyond the one that it counts for.
    passed_inside: usize,
    start: Instant,
}

impl Default for Report {
    fn default() -> Self {
        Self { finished: Vec::new(), passed_inside: 0, start: Instant::now() }
    }
}

impl Report {
    /// Runs and takes in a test that needs no machine.
    pub(super) fn time(&mut self, name: &str, work: impl FnOnce() -> Result<Verdict>) {
        let start = Instant::now();
        let verdict = work().unwrap_or_else(|error| Verdict::failed(format!("{error:#}")));
        self.add(name, verdict, start.elapsed());
    }

    /// Takes in a test that could not be run.
    pub(super) fn skip(&mut self, name: &str, why: &str) {
        self.add(name, Verdict::Skipped(why.to_owned()), Duration::ZERO);
    }

    /// Takes in `name`, which stands for `passed` tests.
    pub(super) fn add_many(&mut self, name: &str, passed: usize, elapsed: Duration) {
        self.passed_inside += passed.saturating_sub(1);
        self.add(name, Verdict::Passed, elapsed);
    }

    /// Takes in a test of this verdict.
    pub(super) fn add(&mut self, name: &str, verdict: Verdict, elapsed: Duration) {
        self.take(Finished { name: name.to_owned(), verdict, elapsed, folder: None });
    }

    /// Takes in a test and tells of it.
    pub(super) fn take(&mut self, finished: Finished) {
        let (word, rest) = match &finished.verdict {
            Verdict::Passed => ("ok", String::new()),
            Verdict::Skipped(why) => ("skip", format!(": {why}")),
            Verdict::Failed { why, .. } => ("FAIL", format!(": {why}")),
        };
        println!("{word:4} {:7.1} s  {}{rest}", finished.elapsed.as_secs_f64(), finished.name);
        self.finished.push(finished);
    }

    /// Whether nothing was taken in.
    pub(super) fn is_empty(&self) -> bool {
        self.finished.is_empty()
    }

    /// Whether the test called `name` failed.
    pub(super) fn has_failed(&self, name: &str) -> bool {
        self.failures().any(|finished| finished.name == name)
    }

    /// Whether any test failed.
    pub(super) fn has_failures(&self) -> bool {
        self.failures().next().is_some()
    }

    fn failures(&self) -> impl Iterator<Item = &Finished> {
        self.finished.iter().filter(|finished| matches!(finished.verdict, Verdict::Failed { .. }))
    }

    /// Tells of every failure with its last console lines, and counts.
    pub(super) fn conclude(&self) {
        for finished in self.failures() {
            println!("{}", describe(finished));
        }
        println!("\nin {:.0} s:", self.start.elapsed().as_secs_f64());
        println!("{}", self.count());
    }

    fn count(&self) -> String {
        let failed = self.failures().count();
        let skipped = self.finished.iter().filter(|f| matches!(f.verdict, Verdict::Skipped(_))).count();
        let passed = self.finished.len() - failed - skipped + self.passed_inside;
        format!("{passed} passed, {failed} failed, {skipped} skipped")
    }
}

fn describe(finished: &Finished) -> String {
    let Verdict::Failed { why, lines } = &finished.verdict else { return String::new() };
    let mut text = format!("\nFAILED {}: {why}", finished.name);
    for line in lines {
        text.push_str("\n  ");
        text.push_str(line);
    }
    if let Some(folder) = &finished.folder {
        let shown = folder.strip_prefix(paths::root()).unwrap_or(folder);
        text.push_str(&format!("\n  disks and consoles: {}", shown.display()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_holds_every_test() {
        let mut report = Report::default();
        report.add_many("unit", 700, Duration::ZERO);
        report.time("lint", || Ok(Verdict::Passed));
        report.skip("run/a", "no reason");
        report.time("run/b", || anyhow::bail!("it broke"));
        assert_eq!(report.count(), "701 passed, 1 failed, 1 skipped");
        assert!(report.has_failures() && report.has_failed("run/b") && !report.has_failed("lint"));
    }

    #[test]
    fn a_failure_is_told_with_its_lines_and_folder() {
        let finished = Finished {
            name: "run/b".into(),
            verdict: Verdict::Failed { why: "it broke".into(), lines: vec!["guest | last".into()] },
            elapsed: Duration::ZERO,
            folder: Some(paths::out().join("test/run/b")),
        };
        assert_eq!(
            describe(&finished),
            "\nFAILED run/b: it broke\n  guest | last\n  disks and consoles: target/xmhf/test/run/b"
        );
    }
}
