//! The list of what became of each change: a text file that a later run goes on from.

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
    all: BTreeMap<String, Outcome>,
    again: Option<BTreeSet<String>>,
}

impl Outcomes {
    /// Goes on with the list at `path` where it is of `commit`, and begins it anew where it is not. With `missed`, it
    /// forgets the changes that were missed, whatever commit it is of, for them to be tried again.
    pub(super) fn open(path: &Path, commit: &str, missed: bool) -> Result<Self> {
        let title = format!("# commit {commit}");
        let old = fs::read_to_string(path).unwrap_or_default();
        let mut all = read(&old);
        let mut again = None;
        if missed {
            let names = all.iter().filter(|(_, outcome)| **outcome == Outcome::Missed);
            again = Some(names.map(|(name, _)| name.clone()).collect());
            all.retain(|_, outcome| *outcome != Outcome::Missed);
        } else if old.lines().next() != Some(&title) {
            all.clear();
        }
        fs::create_dir_all(path.parent().context("a list lies in a folder")?)?;
        let rows: String = all.iter().map(|(name, outcome)| row(name, *outcome)).collect();
        fs::write(path, format!("{title}\n{rows}"))?;
        let file = OpenOptions::new().append(true).open(path)?;
        Ok(Self { file, all, again })
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
        self.file.write_all(row(name, outcome).as_bytes())?;
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

fn read(list: &str) -> BTreeMap<String, Outcome> {
    let rows = list.lines().filter_map(|line| line.split_once('\t'));
    rows.filter_map(|(word, name)| {
        let (outcome, _) = NAMES.iter().find(|(_, known)| *known == word)?;
        Some((name.to_owned(), *outcome))
    })
    .collect()
}

fn row(name: &str, outcome: Outcome) -> String {
    let (_, word) = NAMES[outcome as usize];
    format!("{word}\t{name}\n")
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
        let mut first = Outcomes::open(&path, "a", false).unwrap();
        for (place, (outcome, _)) in NAMES.iter().enumerate() {
            first.add(&format!("f.rs:{place}:1: x"), *outcome).unwrap();
        }
        let text = "# commit a\ncaught\tf.rs:0:1: x\ntimeout\tf.rs:1:1: x\nmissed\tf.rs:2:1: x\nunviable\tf.rs:3:1: x\n";
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        let second = Outcomes::open(&path, "a", false).unwrap();
        assert_eq!(second.count(), Count { caught: 1, missed: 1, timeout: 1, unviable: 1 });
        assert!(second.has("f.rs:2:1: x"));
        let again = Outcomes::open(&path, "b", true).unwrap();
        assert_eq!(again.again(), Some(&BTreeSet::from(["f.rs:2:1: x".to_owned()])));
        assert!(!again.has("f.rs:2:1: x") && again.has("f.rs:3:1: x"));
        assert_eq!(again.only(&BTreeSet::from(["f.rs:3:1: x".to_owned()])).count().unviable, 1);
        assert!(!Outcomes::open(&path, "c", false).unwrap().has("f.rs:3:1: x"));
    }
}
