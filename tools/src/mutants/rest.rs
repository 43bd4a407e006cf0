//! Changes that cannot be chosen at run time, by cargo-mutants: one build for each.

use super::change::Change;
use super::outcomes::{Outcome, Outcomes};
use super::tree::Tree;
use crate::toolchain::cargo;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::Path;
use std::process::Command;

/// Changes that cargo-mutants gets at once; what it has done is kept from one such part to the next.
const PART: usize = 20;

/// The lists that cargo-mutants leaves.
const LISTS: [(&str, Outcome); 4] = [
    ("caught.txt", Outcome::Caught),
    ("timeout.txt", Outcome::Timeout),
    ("missed.txt", Outcome::Missed),
    ("unviable.txt", Outcome::Unviable),
];

/// Tries `changes` in the tree's copy.
pub(super) fn try_all(
    program: &Path,
    tree: &Tree,
    changes: &[&Change],
    outcomes: &mut Outcomes,
) -> Result<()> {
    if changes.is_empty() {
        return Ok(());
    }
    let status = tree.command("test").args(["--quiet", "--tests"]).status()?;
    ensure!(status.success(), "the tests fail without any change");
    for (done, part) in changes.chunks(PART).enumerate() {
        eprintln!("xmhf: [{}/{}] with a build each", done * PART, changes.len());
        try_part(program, tree, part, outcomes)?;
    }
    Ok(())
}

fn try_part(program: &Path, tree: &Tree, part: &[&Change], outcomes: &mut Outcomes) -> Result<()> {
    let out = tree.root().join("target/rest");
    fs::create_dir_all(&out)?;
    let mut mutants = Command::new(program);
    tree.adapt(&mut mutants);
    mutants.env("CARGO", cargo().get_program());
    mutants.args([
        "mutants",
        "--in-place",
        "--baseline=skip",
        "--timeout=120",
        "--colors=never",
        "--package",
    ]);
    mutants.arg(tree.package()).arg("--output").arg(&out);
    for change in part {
        mutants.args(["--re", &format!("^{}$", escaped(&change.name))]);
    }
    // Without the examples in documentation, which are compiled at each run.
    mutants.args(["--", "--tests"]);
    let output = mutants.output().context("cannot start cargo-mutants")?;
    let mut told = 0;
    for (list, outcome) in LISTS {
        for name in fs::read_to_string(out.join("mutants.out").join(list)).unwrap_or_default().lines() {
            told += 1;
            outcomes.add(name, outcome)?;
        }
    }
    ensure!(told == part.len(), "cargo-mutants tried {told} of {}:\n{output:?}", part.len());
    Ok(())
}

/// The name as a regular expression.
fn escaped(name: &str) -> String {
    let mut escaped = String::new();
    for character in name.chars() {
        if character.is_ascii_punctuation() {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stands_for_itself_in_an_expression() {
        assert_eq!(escaped("a.rs:1:2: replace | with ^"), r"a\.rs\:1\:2\: replace \| with \^");
    }
}
