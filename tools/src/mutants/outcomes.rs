//! The list of what became of each change: a text file that a later run goes on from.

use super::change::Change;
use anyhow::{Context, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::Path;

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// A test fails.
    Caught,
    /// A test does not end, which is noticed as well.
    Timeout,
    /// All tests pass.
    Missed,
    /// It does not compile.
    Unviable,
}

/// Their names in the list.
const NAMES: [(Outcome, &str); 4] = [
    (Outcome::Caught, "caught"),
    (Outcome::Timeout, "timeout"),
    (Outcome::Missed, "missed"),
    (Outcome::Unviable, "unviable"),
];

/// What became of each change so far, by name.
#[derive(Debug)]
pub(super) struct Outcomes {
    file: File,
    commit: String,
    all: BTreeMap<String, Outcome>,
    again: Option<BTreeSet<String>>,
}

impl Outcomes {
    /// Goes on with the list at `path`. Forgets what is not of `commit` and of a file that `wanted` has changes of, for
    /// it to be tried anew. With `missed`, it forgets what was missed instead, of whatever commit.
    pub(super) fn open(path: &Path, commit: &str, wanted: &[Change], missed: bool) -> Result<Self> {
        let files: BTreeSet<&str> = wanted.iter().map(|change| change.file.as_str()).collect();
        let old = fs::read_to_string(path).unwrap_or_default();
        let is_wanted = |row: &Row<'_>| files.contains(row.name.split(':').next().unwrap_or_default());
        let is_again = |row: &Row<'_>| missed && row.outcome == Outcome::Missed && is_wanted(row);
        let (again, rest): (Vec<Row<'_>>, Vec<Row<'_>>) = old.lines().filter_map(Row::of).partition(is_again);
        let kept: Vec<Row<'_>> =
            rest.into_iter().filter(|row| missed || row.commit == commit || !is_wanted(row)).collect();
        fs::create_dir_all(path.parent().context("a list lies in a folder")?)?;
        fs::write(path, kept.iter().map(Row::to_string).collect::<String>())?;
        let file = OpenOptions::new().append(true).open(path)?;
        let all = kept.into_iter().map(|row| (row.name.to_owned(), row.outcome)).collect();
        let again = missed.then(|| again.into_iter().map(|row| row.name.to_owned()).collect());
        Ok(Self { file, commit: commit.to_owned(), all, again })
    }

    /// The changes that are to be tried again; all where there is no set.
    pub(super) const fn again(&self) -> Option<&BTreeSet<String>> {
        self.again.as_ref()
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.all.contains_key(name)
    }

    /// Adds an outcome to the list, and tells the user of a change that was missed.
    pub(super) fn add(&mut self, name: &str, outcome: Outcome) -> Result<()> {
        if outcome == Outcome::Missed {
            println!("missed: {name}");
        }
        let row = Row { outcome, commit: &self.commit, name };
        self.file.write_all(row.to_string().as_bytes())?;
        self.all.insert(name.to_owned(), outcome);
        Ok(())
    }

    /// Those of the changes called so.
    pub(super) fn only(mut self, names: &BTreeSet<String>) -> Self {
        self.all.retain(|name, _| names.contains(name));
        self
    }

    pub(super) fn count(&self) -> Count {
        let count = |wanted| self.all.values().filter(|outcome| **outcome == wanted).count();
        let [caught, timeout, missed, unviable] = NAMES.map(|(outcome, _)| count(outcome));
        Count { caught, missed, timeout, unviable }
    }
}

/// A line of the list.
struct Row<'a> {
    outcome: Outcome,
    /// What it was tried at.
    commit: &'a str,
    name: &'a str,
}

impl<'a> Row<'a> {
    fn of(line: &'a str) -> Option<Self> {
        let (word, rest) = line.split_once('\t')?;
        let (commit, name) = rest.split_once('\t')?;
        let (outcome, _) = NAMES.into_iter().find(|(_, known)| *known == word)?;
        Some(Self { outcome, commit, name })
    }
}

impl fmt::Display for Row<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (_, word) = NAMES[self.outcome as usize];
        writeln!(f, "{word}\t{}\t{}", self.commit, self.name)
    }
}

/// How many changes there were, and what became of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Count {
    caught: usize,
    missed: usize,
    timeout: usize,
    unviable: usize,
}

impl Count {
    /// Those that compile. One that never ends is noticed as well.
    const fn viable(self) -> usize {
        self.caught + self.missed + self.timeout
    }

    #[expect(clippy::cast_precision_loss, reason = "there are not 2^52 changes")]
    pub(super) fn percent(self) -> f64 {
        100.0 * (self.viable() - self.missed) as f64 / self.viable().max(1) as f64
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { caught, missed, timeout, unviable } = self;
        write!(
            f,
            "{:.1} % of {} viable changes noticed: {caught} caught, {timeout} without an end, {missed} missed; \
             {unviable} did not compile",
            self.percent(),
            self.viable(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_that_compile_count_and_endless_ones_are_noticed() {
        let count = Count { caught: 95, missed: 3, timeout: 2, unviable: 40 };
        assert_eq!(count.viable(), 100);
        assert_eq!(
            count.to_string(),
            "97.0 % of 100 viable changes noticed: 95 caught, 2 without an end, 3 missed; 40 did not compile"
        );
    }

    #[test]
    fn a_list_goes_on_at_its_own_commit_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lists/pals.txt");
        let (f, g) = ([Change::in_file("f.rs")], [Change::in_file("g.rs")]);
        let mut first = Outcomes::open(&path, "a", &f, false).unwrap();
        for (place, (outcome, _)) in NAMES.iter().enumerate() {
            first.add(&format!("f.rs:{place}:1: x"), *outcome).unwrap();
        }
        let text = "caught\ta\tf.rs:0:1: x\ntimeout\ta\tf.rs:1:1: x\nmissed\ta\tf.rs:2:1: x\nunviable\ta\tf.rs:3:1: x\n";
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        let second = Outcomes::open(&path, "a", &f, false).unwrap();
        assert_eq!(second.count(), Count { caught: 1, missed: 1, timeout: 1, unviable: 1 });
        assert!(second.has("f.rs:2:1: x"));
        // Another file's changes are no news of this one's.
        assert!(Outcomes::open(&path, "b", &g, false).unwrap().has("f.rs:2:1: x"));
        let again = Outcomes::open(&path, "b", &f, true).unwrap();
        assert_eq!(again.again(), Some(&BTreeSet::from(["f.rs:2:1: x".to_owned()])));
        assert!(!again.has("f.rs:2:1: x") && again.has("f.rs:3:1: x"));
        assert_eq!(again.only(&BTreeSet::from(["f.rs:3:1: x".to_owned()])).count().unviable, 1);
        assert!(!Outcomes::open(&path, "c", &f, false).unwrap().has("f.rs:3:1: x"));
    }
}
