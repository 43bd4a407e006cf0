//! `docs/behaviours.md` lists behaviours with the test that shows each; here, that each test exists.
//!
//! A row is `| behaviour | test |`; a test is in backquotes, several with commas between: `crate::module::test`
//! for a host test, `guest/NAME` for a bare guest, `run/NAME` for a scenario of the runner.
//!
//! `docs/comparison.md` has in its second column what we promise: each yes with its tests.

use super::{Finding, Source};
use crate::toolchain::binaries;
use anyhow::Result;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const TABLE: &str = "docs/behaviours.md";
const COMPARISON: &str = "docs/comparison.md";

pub(super) fn check(root: &Path, sources: &[Source]) -> Result<Vec<Finding>> {
    let mut known = host_tests(sources);
    let guests = binaries(&root.join("tools/guest/src/bin"))?;
    known.extend(guests.iter().map(|name| format!("guest/{name}")));
    known.extend(scenarios(sources).map(|name| format!("run/{name}")));
    let table = fs::read_to_string(root.join(TABLE)).unwrap_or_default();
    let comparison = fs::read_to_string(root.join(COMPARISON)).unwrap_or_default();
    let mut findings = unknown_tests(&table, &known);
    findings.extend(promises_without_test(&comparison, &known));
    Ok(findings)
}

fn unknown_tests(table: &str, known: &BTreeSet<String>) -> Vec<Finding> {
    let finding = |line, text| Finding { path: TABLE.to_owned(), line, text };
    let mut findings = Vec::new();
    for (index, row) in table.lines().enumerate() {
        let cells: Vec<&str> = row.trim().trim_matches('|').split('|').map(str::trim).collect();
        let is_row = row.trim_start().starts_with('|') && cells.iter().all(|cell| !cell.starts_with("--"));
        if !is_row || cells.last() == Some(&"test") {
            continue;
        }
        let tests: Vec<&str> = cells.last().map_or(Vec::new(), |cell| quoted(cell));
        if cells.len() != 2 || tests.is_empty() {
            findings.push(finding(index + 1, "a row is | behaviour | `test` |".to_owned()));
        }
        let absent = tests.into_iter().filter(|test| !known.contains(*test));
        findings.extend(absent.map(|test| finding(index + 1, format!("no test is called `{test}`"))));
    }
    findings
}

fn promises_without_test(table: &str, known: &BTreeSet<String>) -> Vec<Finding> {
    let finding = |line, text| Finding { path: COMPARISON.to_owned(), line, text };
    let mut findings = Vec::new();
    for (index, row) in table.lines().enumerate() {
        let ours = row.strip_prefix('|').and_then(|row| row.split('|').nth(1)).unwrap_or_default().trim();
        let tests = quoted(ours);
        if ours.starts_with("yes") && tests.is_empty() {
            findings.push(finding(index + 1, "a yes of ours has a test: yes: `test`".to_owned()));
        }
        let absent = tests.into_iter().filter(|test| !known.contains(*test));
        findings.extend(absent.map(|test| finding(index + 1, format!("no test is called `{test}`"))));
    }
    findings
}

/// What stands in backquotes.
fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// Host tests by path: crate as its library is called, modules as files and folders, functions.
fn host_tests(sources: &[Source]) -> BTreeSet<String> {
    let mut tests = BTreeSet::new();
    for source in sources.iter().filter(|source| source.is_rust()) {
        if let Some(module) = module_path(&source.path) {
            let functions = test_functions(&source.text);
            tests.extend(functions.into_iter().map(|function| format!("{module}::{function}")));
        }
    }
    tests
}

/// `lib/x86/src/vmx/vmcs.rs` is `x86::vmx::vmcs`, `lib/platform/tests/multiboot2.rs` is `platform::tests::multiboot2`.
fn module_path(path: &str) -> Option<String> {
    let apart = path.split_once("/tests/").filter(|_| !path.contains("/src/"));
    let (package, file) = apart.or_else(|| path.split_once("/src/"))?;
    let name = package.rsplit('/').next()?;
    let mut parts = vec![name];
    parts.extend(apart.map(|_| "tests"));
    parts.extend(
        file.trim_end_matches(".rs").split('/').filter(|part| !matches!(*part, "lib" | "mod" | "main")),
    );
    Some(parts.join("::"))
}

/// Functions behind a `#[test]`, or in a property-test block, where the attribute looks the same.
pub(super) fn test_functions(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut is_test = false;
    for line in text.lines().map(str::trim) {
        if line == "#[test]" {
            is_test = true;
        } else if let Some(rest) = line.strip_prefix("fn ").filter(|_| is_test) {
            names.extend(rest.split(['(', '<']).next().map(str::to_owned));
            is_test = false;
        }
    }
    names
}

/// Scenarios: string literals behind `name:` in the runner's `test` module.
fn scenarios(sources: &[Source]) -> impl Iterator<Item = &str> {
    let files = sources.iter().filter(|source| source.path.starts_with("tools/src/test/"));
    files.flat_map(|source| source.text.lines()).filter_map(|line| {
        let (_, rest) = line.split_once("name: \"")?;
        rest.split('"').next()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> BTreeSet<String> {
        let tests =
            "#[test]\nfn masks_fit() {}\nfn no_test() {}\n#[test]\n#[should_panic]\nfn stops(x in 0..1) {}\n";
        host_tests(&[
            Source::new("lib/x86/src/vmx/ept.rs", tests),
            Source::new("runtime/src/exit/mod.rs", tests),
            Source::new("lib/x86/build.rs", tests),
            Source::new("lib/platform/tests/multiboot2.rs", "#[test]\nfn copies() {}\n"),
        ])
    }

    #[test]
    fn each_yes_in_the_comparison_has_a_test() {
        let table = "| | ours | theirs |\n|---|---|---|\n| a | yes: `runtime::exit::stops` | yes |\n| b | no | `x` |\n";
        assert_eq!(promises_without_test(table, &known()), []);
        let wrong = "| a | yes | yes |\n\n| b | yes: `runtime::exit::goes` | no |\n";
        let found: Vec<_> = promises_without_test(wrong, &known()).iter().map(|found| found.line).collect();
        assert_eq!(found, [1, 3]);
    }

    #[test]
    fn host_tests_are_known_by_crate_module_and_function() {
        let expected = [
            "platform::tests::multiboot2::copies",
            "runtime::exit::masks_fit",
            "runtime::exit::stops",
            "x86::vmx::ept::masks_fit",
            "x86::vmx::ept::stops",
        ];
        assert_eq!(known().into_iter().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_row_with_existing_tests_passes() {
        let table = "# Behaviours\n\n| behaviour | test |\n|---|---|\n| EPT masks | `x86::vmx::ept::masks_fit`, \
                     `runtime::exit::stops` |\n";
        assert_eq!(unknown_tests(table, &known()), []);
    }

    #[test]
    fn a_row_with_an_absent_test_or_none_is_found() {
        let table = "| behaviour | test |\n|---|---|\n| a | `x86::gone` |\n| b | by hand |\n";
        let lines: Vec<usize> = unknown_tests(table, &known()).iter().map(|finding| finding.line).collect();
        assert_eq!(lines, [3, 4]);
    }

    #[test]
    fn scenarios_are_named_in_the_runner() {
        let source =
            Source::new("tools/src/test/linux.rs", "Scenario { name: \"linux-2-cpus\", cpus: 2 },\n");
        assert_eq!(scenarios(&[source]).collect::<Vec<_>>(), ["linux-2-cpus"]);
    }
}
