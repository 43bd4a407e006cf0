//! What is told of the tests: a line for each as it ends, then the failures, then the count.

use super::job::{Finished, Verdict};
use crate::paths;
use anyhow::Result;
use quick_junit::{NonSuccessKind, TestCase, TestCaseStatus, TestSuite};
use std::io::Write;
use std::time::{Duration, Instant};

/// All tests that have ended.
#[derive(Debug)]
pub(super) struct Report {
    finished: Vec<Finished>,
    /// Tests inside one of [`Self::finished`], beyond the one that it counts for.
    passed_inside: usize,
    /// How many there will be.
    expected: usize,
    start: Instant,
}

impl Report {
    /// A report of so many tests, none of which has ended.
    pub(super) fn of(expected: usize) -> Self {
        Self { finished: Vec::new(), passed_inside: 0, expected, start: Instant::now() }
    }

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
        self.finished.push(finished);
        let (finished, place) = (&self.finished[self.finished.len() - 1], self.place());
        println!("{place} {word:4} {:7.1} s  {}{rest}", finished.elapsed.as_secs_f64(), finished.name);
    }

    /// The last test's number and how many there are, as wide for each.
    fn place(&self) -> String {
        let width = self.expected.to_string().len();
        format!("[{:>width$}/{}]", self.finished.len(), self.expected)
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
        if let Some(text) = self.left() {
            println!("\n{text}");
        }
        println!("\nin {:.0} s:", self.start.elapsed().as_secs_f64());
        println!("{}", self.count());
    }

    /// What is told where tests were not run, for the user ended them.
    fn left(&self) -> Option<String> {
        let left = self.expected.saturating_sub(self.finished.len());
        (left > 0).then(|| format!("{left} of {} tests were not run to their end", self.expected))
    }

    /// Writes all tests in JUnit's form, which build servers read.
    ///
    /// # Errors
    ///
    /// The file's.
    pub(super) fn write_junit(&self, file: impl Write) -> Result<()> {
        let mut suite = TestSuite::new("tools/xmhf test");
        for finished in &self.finished {
            let status = match &finished.verdict {
                Verdict::Passed => TestCaseStatus::success(),
                Verdict::Skipped(why) => {
                    let mut status = TestCaseStatus::skipped();
                    status.set_message(why.as_str());
                    status
                }
                Verdict::Failed { why, lines } => {
                    let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
                    status.set_message(why.as_str()).set_description(lines.join("\n"));
                    status
                }
            };
            let mut case = TestCase::new(finished.name.as_str(), status);
            case.set_time(finished.elapsed);
            suite.add_test_case(case);
        }
        let mut report = quick_junit::Report::new("XMHF");
        report.set_time(self.start.elapsed()).add_test_suite(suite);
        Ok(report.serialize(file)?)
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
        let mut report = Report::of(4);
        report.add_many("unit", 700, Duration::ZERO);
        report.time("lint", || Ok(Verdict::Passed));
        report.skip("run/a", "no reason");
        report.time("run/b", || anyhow::bail!("it broke"));
        assert_eq!(report.count(), "701 passed, 1 failed, 1 skipped");
        assert!(report.has_failures() && report.has_failed("run/b") && !report.has_failed("lint"));
    }

    #[test]
    fn each_line_says_how_far_it_is() {
        let mut report = Report::of(120);
        report.skip("run/a", "no reason");
        assert_eq!(report.place(), "[  1/120]");
    }

    #[test]
    fn tests_that_were_not_run_are_told() {
        let mut report = Report::of(2);
        report.skip("run/a", "no reason");
        assert_eq!(report.left().as_deref(), Some("1 of 2 tests were not run to their end"));
        report.skip("run/b", "no reason");
        assert_eq!(report.left(), None);
    }

    #[test]
    fn build_servers_get_every_test() {
        let mut report = Report::of(3);
        report.time("lint", || Ok(Verdict::Passed));
        report.skip("run/a", "no <reason>");
        report.time("run/b", || anyhow::bail!("it broke"));
        let mut file = Vec::new();
        report.write_junit(&mut file).unwrap();
        let text = String::from_utf8(file).unwrap();
        assert!(text.contains("tests=\"3\"") && text.contains("failures=\"1\""), "{text}");
        assert!(text.contains("name=\"run/b\"") && text.contains("no &lt;reason&gt;"), "{text}");
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
