//! A copy of the tree whose sources are made wrong: nothing is changed in the tree itself.

use super::change::Change;
use super::switch::{self, Numbered};
use crate::paths;
use crate::toolchain::cargo;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The copy and what is tried in it.
#[derive(Debug)]
pub(super) struct Tree {
    root: PathBuf,
    package: String,
    /// The package's folder, below the root.
    folder: String,
}

/// A package with its changes in it, compiled.
#[derive(Debug)]
pub(super) struct Built {
    pub(super) binaries: Vec<PathBuf>,
    pub(super) numbered: Vec<Numbered>,
    /// Changes that do not compile, by their place in the list.
    pub(super) unviable: BTreeSet<usize>,
    /// The sources as they were.
    originals: BTreeMap<String, String>,
}

#[cfg(test)]
impl Built {
    /// One that was built without any change, for tests.
    pub(super) const fn of(binaries: Vec<PathBuf>) -> Self {
        Self { binaries, numbered: Vec::new(), unviable: BTreeSet::new(), originals: BTreeMap::new() }
    }
}

impl Tree {
    /// Makes the copy equal to the tree, without touching files that are.
    pub(super) fn new(package: &str) -> Result<Self> {
        let root = paths::out().join("mutants/tree");
        copy(paths::root(), &root, true)?;
        let short = package.strip_prefix("xmhf-").unwrap_or(package);
        let folders = [short.to_owned(), format!("lib/{short}")];
        let folder = folders.into_iter().find(|folder| root.join(folder).join("src/lib.rs").exists());
        let folder = folder.with_context(|| format!("{package} is no library"))?;
        Ok(Self { root, package: package.to_owned(), folder })
    }

    /// A tree that is none, for tests.
    #[cfg(test)]
    pub(super) fn at(root: &Path) -> Self {
        Self { root: root.to_owned(), package: String::new(), folder: String::new() }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn package(&self) -> &str {
        &self.package
    }

    /// Where Cargo runs the package's tests.
    pub(super) fn package_folder(&self) -> PathBuf {
        self.root.join(&self.folder)
    }

    /// Cargo in the copy, with a target folder of its own and without information that only debuggers read.
    pub(super) fn command(&self, verb: &str) -> Command {
        let mut command = cargo();
        self.adapt(&mut command);
        command.args([verb, "--package", &self.package]);
        command
    }

    /// Lets a command work in the copy.
    pub(super) fn adapt(&self, command: &mut Command) {
        command
            .current_dir(&self.root)
            .env("XMHF_ROOT", &self.root)
            .env("CARGO_TARGET_DIR", self.root.join("target"))
            .env("CARGO_PROFILE_DEV_DEBUG", "0")
            // A failure is enough: what it prints costs more than most tests.
            .env("RUST_BACKTRACE", "0")
            .env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "1")
            .env("RUSTFLAGS", "--cap-lints=allow")
            .env("RUSTC_BOOTSTRAP", "1");
    }

    /// Compiles the package once for all of `changes` that can be chosen at run time. Those that do not compile are
    /// taken out, as the compiler names them, until the rest does.
    pub(super) fn build(&self, changes: &[Change]) -> Result<Built> {
        let originals = self.originals(changes)?;
        let (mut unviable, mut constant) = (BTreeSet::new(), BTreeSet::new());
        loop {
            let numbered = self.write(&originals, changes, &unviable.union(&constant).copied().collect())?;
            let build = |what: &str| {
                let mut build = self.command("test");
                messages(build.args([what, "--no-run", "--message-format=json"]))
            };
            let mut messages = build("--lib")?;
            if errors(&messages).next().is_none() {
                messages = build("--tests")?;
            }
            if errors(&messages).next().is_none() {
                let binaries = messages.iter().filter_map(executable).collect();
                return Ok(Built { binaries, numbered, unviable, originals });
            }
            for error in errors(&messages) {
                blame(error, changes, &numbered, &mut unviable, &mut constant)?;
            }
            eprintln!("xmhf: {} changes do not compile, {} constants need", unviable.len(), constant.len());
        }
    }

    /// The texts that changes are made in, by file.
    fn originals(&self, changes: &[Change]) -> Result<BTreeMap<String, String>> {
        let files: BTreeSet<String> =
            changes.iter().map(|change| change.file.clone()).chain([self.first_file()]).collect();
        files.into_iter().map(|file| Ok((file.clone(), fs::read_to_string(self.root.join(&file))?))).collect()
    }

    /// The package's first file.
    fn first_file(&self) -> String {
        format!("{}/src/lib.rs", self.folder)
    }

    /// Makes the sources what they were before they were built with changes.
    pub(super) fn restore(&self, built: &Built) -> Result<()> {
        built
            .originals
            .iter()
            .try_for_each(|(file, text)| write_if_other(&self.root.join(file), text.as_bytes()))
    }

    /// Writes the sources with all changes but those `without`.
    fn write(
        &self,
        originals: &BTreeMap<String, String>,
        changes: &[Change],
        without: &BTreeSet<usize>,
    ) -> Result<Vec<Numbered>> {
        let mut numbered = Vec::new();
        for (file, text) in originals {
            let of_file = changes.iter().enumerate().filter(|(_, change)| change.file == *file);
            let next = u32::try_from(numbered.len())? + 1;
            let (mut new, more) = switch::switched(text, &of_file.collect::<Vec<_>>(), without, next);
            let is_first = *file == self.first_file();
            if is_first {
                new = format!("{}{new}{}", switch::FEATURES, switch::MODULE);
            }
            numbered.extend(more.into_iter().map(|one| one.moved(usize::from(is_first))));
            write_if_other(&self.root.join(file), new.as_bytes())?;
        }
        Ok(numbered)
    }
}

/// The compiler's errors among Cargo's messages, without its summary.
fn errors(messages: &[Value]) -> impl Iterator<Item = &Value> {
    messages.iter().filter_map(|message| message.get("message")).filter(|message| {
        message["level"] == "error" && message["spans"].as_array().is_some_and(|spans| !spans.is_empty())
    })
}

/// Adds what `error` is about: a change, or a function that a constant needs.
fn blame(
    error: &Value,
    changes: &[Change],
    numbered: &[Numbered],
    unviable: &mut BTreeSet<usize>,
    constant: &mut BTreeSet<usize>,
) -> Result<()> {
    let places = places(error);
    let is_at = |one: &Numbered, file: &str| changes[one.index].file == file;
    let function = |(file, line): &(String, usize)| {
        numbered.iter().find(|one| is_at(one, file) && one.head == *line).map(|one| one.first)
    };
    let change = |(file, line): &(String, usize)| {
        numbered.iter().find(|one| is_at(one, file) && one.lines.contains(line)).map(|one| one.index)
    };
    if error["code"]["code"] == "E0080" {
        // The frames of what is evaluated.
        let functions: BTreeSet<u32> = places.iter().filter_map(function).collect();
        ensure!(!functions.is_empty(), "no function is to blame for {}", error["rendered"]);
        let inside = numbered.iter().filter(|one| functions.contains(&one.first));
        constant.extend(inside.map(|one| one.index));
    } else {
        let blamed = places.iter().find_map(change);
        unviable.insert(blamed.with_context(|| format!("no change is to blame for {}", error["rendered"]))?);
    }
    Ok(())
}

/// Runs Cargo and gives its messages, one JSON object a line.
fn messages(command: &mut Command) -> Result<Vec<Value>> {
    let output = command.stderr(Stdio::piped()).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let messages: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let is_told = messages.iter().any(|message| message["message"]["level"] == "error");
    ensure!(output.status.success() || is_told, "{}", String::from_utf8_lossy(&output.stderr));
    Ok(messages)
}

fn executable(message: &Value) -> Option<PathBuf> {
    let is_test = message.get("profile")?.get("test")? == true;
    Some(message.get("executable")?.as_str().filter(|_| is_test)?.into())
}

/// Files and lines that an error of the compiler points at, the primary ones first, with those of macros' users.
fn places(error: &Value) -> Vec<(String, usize)> {
    let mut places = Vec::new();
    let notes = error["children"].as_array().into_iter().flatten();
    let all = std::iter::once(error).chain(notes);
    let spans = all.flat_map(|message| message["spans"].as_array().into_iter().flatten());
    let (primary, others): (Vec<&Value>, Vec<&Value>) = spans.partition(|span| span["is_primary"] == true);
    for mut span in primary.into_iter().chain(others) {
        while let Some(file) = span["file_name"].as_str() {
            places.push((file.to_owned(), span["line_start"].as_u64().unwrap_or(0).try_into().unwrap_or(0)));
            span = &span["expansion"]["span"];
        }
    }
    places
}

/// Makes `to` equal to `from`. A file that is equal keeps its time, or Cargo would compile it again.
fn copy(from: &Path, to: &Path, is_root: bool) -> Result<()> {
    fs::create_dir_all(to)?;
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if is_root && (name == "target" || name == ".git") {
            continue;
        }
        let new = to.join(&name);
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &new, false)?;
        } else {
            write_if_other(&new, &fs::read(entry.path())?)?;
        }
        names.insert(name);
    }
    for entry in fs::read_dir(to)? {
        let entry = entry?;
        let is_kept = is_root && entry.file_name() == "target";
        if !is_kept && !names.contains(&entry.file_name()) {
            let path = entry.path();
            if entry.file_type()?.is_dir() { fs::remove_dir_all(path)? } else { fs::remove_file(path)? }
        }
    }
    Ok(())
}

fn write_if_other(path: &Path, content: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|old| old == content) {
        return Ok(());
    }
    fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_equal_and_keeps_the_times_of_equal_files() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::create_dir_all(from.join("a/b")).unwrap();
        fs::create_dir_all(from.join("target")).unwrap();
        fs::write(from.join("a/b/kept"), "1").unwrap();
        fs::write(from.join("a/changed"), "2").unwrap();
        copy(&from, &to, true).unwrap();
        let time = || fs::metadata(to.join("a/b/kept")).unwrap().modified().unwrap();
        let before = time();
        fs::write(to.join("a/changed"), "wrong").unwrap();
        fs::write(to.join("a/more"), "").unwrap();
        copy(&from, &to, true).unwrap();
        assert_eq!(fs::read_to_string(to.join("a/changed")).unwrap(), "2");
        assert!(!to.join("a/more").exists() && !to.join("target").exists());
        assert_eq!(time(), before);
    }

    #[test]
    fn an_error_is_placed_by_its_own_line_and_its_macro_s_user() {
        let error = serde_json::json!({"spans": [
            {"is_primary": false, "file_name": "a.rs", "line_start": 3},
            {"is_primary": true, "file_name": "m.rs", "line_start": 9,
             "expansion": {"span": {"file_name": "a.rs", "line_start": 5}}},
        ]});
        let expected = [("m.rs", 9), ("a.rs", 5), ("a.rs", 3)].map(|(file, line)| (file.to_owned(), line));
        assert_eq!(places(&error), expected);
    }
}
