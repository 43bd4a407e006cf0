//! `tools/xmhf mutants`: whether the host tests notice code that is wrong, one small change at a time.
//!
//! The changes are those of cargo-mutants; `.cargo/mutants.toml` says what is changed and how long a test may take.
//! Files that only the bare target compiles are left out: a change there is none for the host. A package is compiled
//! once with all its changes in it, of which each is then tried (`switch`, `trial`); what that cannot do, which is
//! what constants need, cargo-mutants does itself, one build a change.

mod change;
mod outcomes;
mod rest;
mod switch;
mod tree;
mod trial;

use crate::installed::installed;
use crate::toolchain::cargo;
use crate::{paths, process};
use anyhow::{Result, ensure};
use change::Change;
use outcomes::{Outcome, Outcomes};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tree::Tree;
use trial::Trial;

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
    /// Only files whose path begins so.
    pub file: Option<String>,
    /// Only what this diff touches.
    pub in_diff: Option<PathBuf>,
    /// Only changes that no test noticed last time.
    pub missed: bool,
    /// Only changes that can be chosen at run time.
    pub quick: bool,
}

/// Tries the changes, prints what no test noticed, and fails below the bar.
///
/// What has been tried at this commit is not tried again.
///
/// # Errors
///
/// cargo-mutants cannot be installed, the tests fail without any change, or the bar is missed.
pub fn run(wanted: &Wanted) -> Result<()> {
    let named = wanted.package.as_deref().map(full_name);
    if let Some(package) = &named {
        // It takes minutes before cargo-mutants would say that there is no such package.
        process::output(cargo().current_dir(paths::root()).args(["pkgid", "--package", package]))?;
    }
    let program = installed("cargo-mutants", VERSION, "cargo-mutants")?;
    let mut failed = Vec::new();
    for package in named.map_or_else(packages, |package| Ok(vec![package]))? {
        let outcomes = try_package(&program, &package, wanted)?;
        println!("{package}: {}", outcomes.count());
        let bar = if package == RUNTIME { 95.0 } else { 97.0 };
        if outcomes.count().percent() < bar {
            failed.push(format!("{package}: the bar is {bar} % of the viable changes"));
        }
    }
    ensure!(failed.is_empty(), "{}", failed.join("\n"));
    Ok(())
}

/// What is tried where no package is named.
fn packages() -> Result<Vec<String>> {
    let mut packages = vec![RUNTIME.to_owned()];
    for folder in fs::read_dir(paths::root().join("lib"))? {
        packages.push(full_name(&folder?.file_name().to_string_lossy()));
    }
    packages.sort();
    Ok(packages)
}

fn try_package(program: &Path, package: &str, wanted: &Wanted) -> Result<Outcomes> {
    // All is taken from the copy: the tree may change meanwhile.
    let tree = Tree::new(package)?;
    let mut changes = listed(program, &tree, wanted)?;
    let list = paths::out().join("mutants").join(package).with_extension("txt");
    let mut outcomes = Outcomes::open(&list, &commit()?, &changes, wanted.missed)?;
    if let Some(again) = outcomes.again() {
        changes.retain(|change| again.contains(&change.name));
    }
    let names: BTreeSet<String> = changes.iter().map(|change| change.name.clone()).collect();
    changes.retain(|change| !outcomes.has(&change.name));
    eprintln!("xmhf: {package}: {} changes, {} to try", names.len(), changes.len());
    if !changes.is_empty() {
        let left = try_at_run_time(&tree, &changes, &mut outcomes)?;
        if !wanted.quick {
            rest::try_all(program, &tree, &left, &mut outcomes)?;
        }
    }
    Ok(outcomes.only(&names))
}

/// Tries what can be chosen at run time, and gives the others.
fn try_at_run_time<'a>(
    tree: &Tree,
    changes: &'a [Change],
    outcomes: &mut Outcomes,
) -> Result<Vec<&'a Change>> {
    let built = tree.build(changes)?;
    for index in &built.unviable {
        outcomes.add(&changes[*index].name, Outcome::Unviable)?;
    }
    eprintln!("xmhf: {} of them at run time", built.numbered.len());
    let trial = Trial::new(tree, &built)?;
    for (done, one) in built.numbered.iter().enumerate() {
        let outcome = trial.outcome(one.number, one.first)?;
        outcomes.add(&changes[one.index].name, outcome)?;
        if done % 100 == 99 {
            eprintln!("xmhf: [{}/{}]", done + 1, built.numbered.len());
        }
    }
    tree.restore(&built)?;
    Ok(changes.iter().filter(|change| !outcomes.has(&change.name)).collect())
}

/// The changes that are wanted.
fn listed(program: &Path, tree: &Tree, wanted: &Wanted) -> Result<Vec<Change>> {
    let mut mutants = Command::new(program);
    mutants.current_dir(tree.root()).env("CARGO", cargo().get_program());
    mutants.args(["mutants", "--list", "--json", "--package", tree.package()]);
    for glob in files_left_out(tree.root())? {
        mutants.arg("--exclude").arg(glob);
    }
    if let Some(diff) = &wanted.in_diff {
        mutants.arg("--in-diff").arg(std::path::absolute(diff)?);
    }
    let mut changes = Change::list(&process::output(&mut mutants)?)?;
    // cargo-mutants would add the files to those of its configuration.
    let file = wanted.file.as_deref().unwrap_or_default();
    changes.retain(|change| change.file.starts_with(file));
    // Not by cargo-mutants: a function's body is known by changes that its part might not have.
    if let Some((part, parts)) = wanted.shard.as_deref().and_then(shard_numbers) {
        changes = changes.into_iter().skip(part).step_by(parts).collect();
    }
    Ok(changes)
}

/// What the lists of outcomes are of.
fn commit() -> Result<String> {
    let git =
        |arguments: &[&str]| process::output(Command::new("git").current_dir(paths::root()).args(arguments));
    let changed = git(&["status", "--porcelain", "--untracked-files=no"])?;
    let hash = git(&["rev-parse", "--short=12", "HEAD"])?;
    Ok(format!("{}{}", hash.trim(), if changed.is_empty() { "" } else { " with changes" }))
}

/// Takes `I/N` with I below N, before minutes go into a run that could not be.
pub(crate) fn shard(words: &str) -> Result<String, &'static str> {
    shard_numbers(words).map(|_| words.to_owned()).ok_or("not I/N with I from 0 to N - 1")
}

fn shard_numbers(words: &str) -> Option<(usize, usize)> {
    let (part, parts) = words.split_once('/')?;
    let numbers = (part.parse().ok()?, parts.parse().ok()?);
    (numbers.0 < numbers.1).then_some(numbers)
}

/// `microtpm` is `xmhf-microtpm`.
fn full_name(package: &str) -> String {
    if package.starts_with("xmhf-") { package.to_owned() } else { format!("xmhf-{package}") }
}

/// What is put before a module that only the bare target compiles, and before one that only tests do: cargo-mutants
/// knows `#[cfg(test)]` by itself.
const LEFT_OUT: [&str; 2] = ["#[cfg(target_os = \"none\")]", "#[cfg(any(test, fuzzing))]"];

/// Globs of the files of modules that are [`LEFT_OUT`].
fn files_left_out(root: &Path) -> Result<Vec<String>> {
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
                let modules = modules_left_out(&fs::read_to_string(&path)?);
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

fn modules_left_out(text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let attributed = lines.windows(2).filter(|pair| LEFT_OUT.contains(&pair[0]));
    let module = |line: &str| {
        let (_, name) = line.strip_suffix(';')?.rsplit_once("mod ")?;
        Some(name.to_owned())
    };
    attributed.filter_map(|pair| module(pair[1])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_bare_target_and_of_tests_are_found_by_attribute() {
        let text = "#[cfg(target_os = \"none\")]\npub(crate) mod host;\nmod guest;\n#[cfg(any(test, fuzzing))]\nmod \
                    model;\n#[cfg(not(test))]\nmod real;\n";
        assert_eq!(modules_left_out(text), ["host", "model"]);
        assert_eq!(module_folder(Path::new("runtime/src/memory/mod.rs")), "runtime/src/memory");
        assert_eq!(
            module_folder(Path::new("runtime/src/exit/task_switch.rs")),
            "runtime/src/exit/task_switch"
        );
        let files = files_left_out(paths::root()).unwrap();
        assert!(files.iter().any(|file| file == "lib/hw/src/bare.rs"));
        assert!(!files.iter().any(|file| file == "runtime/src/memory/policy.rs"));
    }

    #[test]
    fn packages_go_by_short_names_too() {
        assert_eq!([full_name("pals"), full_name("xmhf-pals")], ["xmhf-pals", "xmhf-pals"]);
        let all = packages().unwrap();
        assert!(["xmhf-pals", "xmhf-x86", RUNTIME].iter().all(|one| all.iter().any(|name| name == one)));
    }
}
