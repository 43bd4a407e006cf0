//! `tools/xmhf mutants`: whether the host tests notice code that is wrong, one small change at a time.
//!
//! The changes are those of cargo-mutants; `.cargo/mutants.toml` says what is changed and how long a test may take.
//! Files that only the bare target compiles are left out: a change there is none for the host.

use crate::installed::installed;
use crate::toolchain::cargo;
use crate::{paths, process};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The version that the figures in docs/behaviours.md are of.
const VERSION: &str = "27.1.0";
/// The runtime, which has a bar of its own: part of what it does shows on a machine only.
const RUNTIME: &str = "xmhf-runtime";

/// What to try.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// A package of the workspace, with or without `xmhf-`; all where there is none.
    pub package: Option<String>,
    /// `I/N`: every Nth change, from the Ith on, counted from 0.
    pub shard: Option<String>,
    /// Only files that match.
    pub file: Option<String>,
    /// Only what this diff touches.
    pub in_diff: Option<PathBuf>,
}

/// Tries the changes, prints what no test noticed, and fails below the bar.
///
/// # Errors
///
/// cargo-mutants cannot be installed, the tests fail without any change, or the bar is missed.
pub fn run(wanted: &Wanted) -> Result<()> {
    if let Some(package) = wanted.package.as_deref().map(full_name) {
        // It takes minutes before cargo-mutants would say that there is no such package.
        process::output(cargo().current_dir(paths::root()).args(["pkgid", "--package", &package]))?;
    }
    let program = installed("cargo-mutants", VERSION, "cargo-mutants")?;
    let package = wanted.package.as_deref().map(full_name);
    let out = paths::out().join("mutants").join(package.as_deref().unwrap_or("all"));
    fs::create_dir_all(&out)?;
    let mut mutants = Command::new(program);
    mutants.current_dir(paths::root()).env("CARGO", cargo().get_program());
    mutants
        .args(["mutants", "--sharding=round-robin", "--no-shuffle", "--colors=never", "--jobs=1", "--output"])
        .arg(&out);
    match &package {
        Some(package) => mutants.args(["--package", package]),
        None => mutants.arg("--workspace"),
    };
    for glob in bare_files(paths::root())? {
        mutants.arg("--exclude").arg(glob);
    }
    let options = [("--shard", &wanted.shard), ("--file", &wanted.file)];
    for (option, value) in options {
        value.iter().for_each(|value| _ = mutants.args([option, value]));
    }
    if let Some(diff) = &wanted.in_diff {
        mutants.arg("--in-diff").arg(std::path::absolute(diff)?);
    }
    // Its exit code tells of survivors too, which are counted below.
    let _ = mutants.status().context("cannot start cargo-mutants")?;
    let outcomes =
        fs::read_to_string(out.join("mutants.out/outcomes.json")).context("it left no outcomes")?;
    let count = Count::of(&outcomes)?;
    println!("{count}");
    let bar = if package.as_deref() == Some(RUNTIME) { 95.0 } else { 97.0 };
    ensure!(count.percent() >= bar, "the bar is {bar} % of the viable changes");
    Ok(())
}

/// `microtpm` is `xmhf-microtpm`.
fn full_name(package: &str) -> String {
    if package.starts_with("xmhf-") { package.to_owned() } else { format!("xmhf-{package}") }
}

/// Globs of the files that only the bare target compiles: modules behind `#[cfg(target_os = "none")]`.
fn bare_files(root: &Path) -> Result<Vec<String>> {
    let mut globs = Vec::new();
    let mut folders = vec![root.join("runtime/src")];
    for package in fs::read_dir(root.join("lib"))? {
        folders.push(package?.path().join("src"));
    }
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let place = module_folder(path.strip_prefix(root).unwrap_or(&path));
                let modules = bare_modules(&fs::read_to_string(&path)?);
                globs.extend(
                    modules
                        .iter()
                        .flat_map(|module| [format!("{place}/{module}.rs"), format!("{place}/{module}/**")]),
                );
            }
        }
    }
    globs.sort();
    Ok(globs)
}

/// Where the modules of a file lie.
fn module_folder(file: &Path) -> String {
    let is_folder_s =
        file.file_stem().is_some_and(|stem| ["lib", "mod", "main"].iter().any(|own| stem == *own));
    let folder = if is_folder_s { file.parent().unwrap_or(file).to_owned() } else { file.with_extension("") };
    folder.to_string_lossy().into_owned()
}

fn bare_modules(text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let attributed = lines.windows(2).filter(|pair| pair[0] == "#[cfg(target_os = \"none\")]");
    let module = |line: &str| {
        let (_, name) = line.strip_suffix(';')?.rsplit_once("mod ")?;
        Some(name.to_owned())
    };
    attributed.filter_map(|pair| module(pair[1])).collect()
}

/// How many changes there were, and what became of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Count {
    caught: u64,
    missed: u64,
    timeout: u64,
    unviable: u64,
}

impl Count {
    /// Reads cargo-mutants' `outcomes.json`.
    fn of(outcomes: &str) -> Result<Self> {
        let outcomes: Value = serde_json::from_str(outcomes).context("cargo-mutants wrote no JSON")?;
        let count =
            |key: &str| outcomes.get(key).and_then(Value::as_u64).with_context(|| format!("no {key}"));
        Ok(Self {
            caught: count("caught")?,
            missed: count("missed")?,
            timeout: count("timeout")?,
            unviable: count("unviable")?,
        })
    }

    /// Those that compile. One that never ends is noticed as well.
    const fn viable(self) -> u64 {
        self.caught + self.missed + self.timeout
    }

    #[expect(clippy::cast_precision_loss, reason = "there are not 2^52 changes")]
    fn percent(self) -> f64 {
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
        let outcomes = r#"{"outcomes":[],"caught":95,"missed":3,"timeout":2,"unviable":40,"success":0}"#;
        let count = Count::of(outcomes).unwrap();
        assert_eq!(count.viable(), 100);
        assert_eq!(
            count.to_string(),
            "97.0 % of 100 viable changes noticed: 95 caught, 2 without an end, 3 missed; 40 did not compile"
        );
        assert!(Count::of(r#"{"caught":1}"#).is_err());
    }

    #[test]
    fn files_of_the_bare_target_are_found_by_attribute() {
        let text =
            "#[cfg(target_os = \"none\")]\npub(crate) mod host;\nmod guest;\n#[cfg(test)]\nmod tests;\n";
        assert_eq!(bare_modules(text), ["host"]);
        assert_eq!(module_folder(Path::new("runtime/src/memory/mod.rs")), "runtime/src/memory");
        assert_eq!(
            module_folder(Path::new("runtime/src/exit/task_switch.rs")),
            "runtime/src/exit/task_switch"
        );
        let files = bare_files(paths::root()).unwrap();
        assert!(files.iter().any(|file| file == "runtime/src/memory/host.rs"));
        assert!(!files.iter().any(|file| file == "runtime/src/memory/policy.rs"));
    }

    #[test]
    fn packages_go_by_short_names_too() {
        assert_eq!([full_name("pals"), full_name("xmhf-pals")], ["xmhf-pals", "xmhf-pals"]);
    }
}
