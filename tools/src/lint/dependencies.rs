//! What is depended on comes from the registry, under licences that `deny.toml` allows, and is nothing that it denies.
//!
//! cargo-deny does the same and more; it is asked too where it is installed, which takes minutes.

use crate::toolchain::cargo;
use crate::{paths, process};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;

const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";
/// Whose licences go with an image.
const LIST: &str = "THIRD-PARTY.md";
/// What the lint asks of cargo-deny; advisories need a database that is not to be had everywhere.
const CHECKS: [&str; 3] = ["bans", "licenses", "sources"];

/// Checks every package that Cargo would take.
///
/// # Errors
///
/// A package breaks a rule, or Cargo cannot tell of them.
pub(super) fn check() -> Result<()> {
    let path = paths::root().join("deny.toml");
    let rules = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let metadata = process::output(cargo().args(["metadata", "--format-version=1", "--locked"]))?;
    let mut found = breaches(&rules, &serde_json::from_str(&metadata)?);
    found.extend(unlisted(&images()?, &fs::read_to_string(paths::root().join(LIST))?));
    found.iter().for_each(|breach| println!("{breach}"));
    ensure!(found.is_empty(), "{} dependencies break a rule of deny.toml", found.len());
    if process::output(cargo().args(["deny", "--version"])).is_ok() {
        process::run(cargo().args(["deny", "--log-level=warn", "check"]).args(CHECKS))?;
    } else {
        println!(
            "cargo-deny is not installed: deny.toml was checked for licences, sources and denied crates alone"
        );
    }
    Ok(())
}

/// Names of the crates of others that are linked into images.
fn images() -> Result<BTreeSet<String>> {
    let packages =
        ["xmhf-bootloader", "xmhf-secureloader", "xmhf-hypapps"].map(|name| format!("--package={name}"));
    let mut tree = cargo();
    // As for the bare target, which no `cargo tree` knows by its file: what a host alone needs is in no image.
    tree.args(["tree", "--locked", "--edges=normal,no-proc-macro", "--prefix=none", "--format={p}"])
        .arg("--target=x86_64-unknown-none")
        .args(packages);
    let text = process::output(&mut tree)?;
    let names = text.lines().filter_map(|line| line.split_whitespace().next());
    Ok(names.filter(|name| !name.starts_with("xmhf")).map(str::to_owned).collect())
}

/// A line for each crate that is in images and not in the list, or the other way round.
fn unlisted(images: &BTreeSet<String>, list: &str) -> Vec<String> {
    let rows = list.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let listed: BTreeSet<String> = rows.map(str::to_owned).collect();
    let missing =
        images.difference(&listed).map(|name| format!("{LIST}: {name} is in images and has no row"));
    let extra = listed.difference(images).map(|name| format!("{LIST}: {name} is in no image"));
    missing.chain(extra).collect()
}

/// A line for each package that breaks a rule.
fn breaches(rules: &str, metadata: &Value) -> Vec<String> {
    let (allowed, denied) = (list(rules, "allow"), list(rules, "deny"));
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let mut found = Vec::new();
    for package in packages {
        let text = |key: &str| package[key].as_str();
        let name = text("name").unwrap_or_default();
        // What has no source is of this tree.
        let Some(source) = text("source") else { continue };
        if source != REGISTRY {
            found.push(format!("{name}: comes from {source}"));
        }
        if denied.contains(&name) {
            found.push(format!("{name}: is denied"));
        }
        let licence = text("license").unwrap_or("none");
        if !is_allowed(licence, &allowed) {
            found.push(format!("{name}: licence {licence} is not allowed"));
        }
    }
    found
}

/// Whether one of the choices that a licence expression leaves is of allowed licences alone (SPDX, "License Expressions").
/// Parentheses are about OR, for AND binds more closely; an expression of more kinds than that is misread, which is seen.
fn is_allowed(expression: &str, allowed: &[&str]) -> bool {
    // Before SPDX a slash meant OR.
    let choices = expression.replace('/', " OR ");
    let is_allowed = |licence: &str| allowed.contains(&licence.trim_matches(['(', ')', ' ']));
    if choices.contains('(') {
        return choices.split(" AND ").all(|part| part.split(" OR ").any(is_allowed));
    }
    choices.split(" OR ").any(|choice| choice.split(" AND ").all(is_allowed))
}

/// The words in quotes of the list that `key` is in a TOML file.
fn list<'a>(text: &'a str, key: &str) -> Vec<&'a str> {
    let start = text.lines().position(|line| line.starts_with(&format!("{key} = [")));
    let lines = text.lines().skip(start.unwrap_or(usize::MAX));
    let mut words = Vec::new();
    for line in lines {
        words.extend(line.split('"').skip(1).step_by(2));
        if line.trim_end().ends_with(']') {
            break;
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: &str = "allow = [\n    \"MIT\",\n    \"Zlib\",\n]\ndeny = [\"bincode\"]\n";

    #[test]
    fn one_allowed_choice_of_licences_is_enough() {
        let allowed = list(RULES, "allow");
        assert_eq!(allowed, ["MIT", "Zlib"]);
        for good in ["MIT", "MIT OR GPL-3.0", "GPL-3.0/MIT", "MIT AND Zlib", "(MIT OR GPL-2.0) AND Zlib"] {
            assert!(is_allowed(good, &allowed), "{good}");
        }
        for bad in ["GPL-3.0", "MIT AND GPL-3.0", "none", "(MIT OR Zlib) AND GPL-2.0", ""] {
            assert!(!is_allowed(bad, &allowed), "{bad}");
        }
    }

    #[test]
    fn the_list_of_what_images_contain_is_whole() {
        let images = ["aes", "spin"].map(str::to_owned).into();
        assert!(unlisted(&images, "| crate | licence |\n| `aes` | MIT |\n| `spin` | MIT |\n").is_empty());
        let found = unlisted(&images, "| `aes` | MIT |\n| `talc` | MIT |\n");
        let wanted = ["spin is in images and has no row", "talc is in no image"];
        assert_eq!(found, wanted.map(|text| format!("{LIST}: {text}")));
    }

    #[test]
    fn foreign_sources_licences_and_denied_crates_are_found() {
        let package = |name: &str, source: &str, license: &str| serde_json::json!({ "name": name, "source": source, "license": license });
        let metadata = serde_json::json!({ "packages": [
            package("good", REGISTRY, "MIT"),
            package("bincode", REGISTRY, "MIT"),
            package("copied", "git+https://example.org/copied", "MIT"),
            package("viral", REGISTRY, "GPL-3.0-only"),
            { "name": "ours", "source": null, "license": null },
        ]});
        let found = breaches(RULES, &metadata);
        let names: Vec<_> = found.iter().filter_map(|line| line.split(':').next()).collect();
        assert_eq!(names, ["bincode", "copied", "viral"], "{found:?}");
    }
}
