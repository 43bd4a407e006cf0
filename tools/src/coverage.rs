//! `tools/xmhf coverage`: how much of the runtime the host tests execute.
//!
//! Of files that the host compiles, LLVM counts the lines. What the machine alone compiles is counted by its lines of
//! code, so that nothing looks tested for being left out. Files that hold nothing but tests do not count.

use crate::lint::sources::{self, Source};
use crate::toolchain::cargo;
use crate::{paths, process};
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What is measured, below the workspace's root.
const MEASURED: &str = "runtime/src/";
/// Smallest part of the lines below a folder that tests must execute, in percent: all of the runtime counts, the part too
/// that only the boot and the entry run.
const BARS: [(&str, f64); 2] = [("", 71.0), ("vmx/nested/", 71.0)];

/// Runs the runtime's host tests with counters, prints a table, and fails below the bar.
///
/// # Errors
///
/// A test fails, LLVM's tools are missing, or the bar is.
pub fn report() -> Result<()> {
    let folder = paths::root().join("target/coverage");
    let profiles = folder.join("profiles");
    if profiles.exists() {
        fs::remove_dir_all(&profiles)?;
    }
    let binary = run_tests(&folder, &profiles)?;
    let merged = folder.join("merged.profdata");
    let raw = fs::read_dir(&profiles)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    process::run(tool("llvm-profdata")?.args(["merge", "-sparse", "-o"]).arg(&merged).args(raw))?;
    let mut export = tool("llvm-cov")?;
    export.args(["export", "-summary-only", "-instr-profile"]).arg(&merged).arg(&binary);
    let table = Table::of_export(&process::output(&mut export)?, paths::root())?;
    println!("{table}\n{}", machine_alone(&table, &sources::read_all(paths::root())?));
    for (folder, bar) in BARS {
        let percent = table.below(folder).percent();
        ensure!(percent >= bar, "{percent:.1} % of the lines below {MEASURED}{folder}; the bar is {bar} %");
    }
    Ok(())
}

/// Tells how much code is in files of which the host compiles nothing.
fn machine_alone(table: &Table, sources: &[Source]) -> String {
    let mut found: Vec<_> = sources
        .iter()
        .filter(|source| source.is_rust() && source.text.contains("fn "))
        .filter_map(|source| Some((lines_of_code(&source.text), source.path.strip_prefix(MEASURED)?)))
        .filter(|(_, name)| !is_test(name) && !table.0.iter().any(|lines| lines.file == *name))
        .collect();
    found.sort_unstable_by(|a, b| b.cmp(a));
    let sum: usize = found.iter().map(|(lines, _)| lines).sum();
    let mut told = format!("{sum} lines of code in {} files are the machine's alone:", found.len());
    for (lines, name) in found {
        told += &format!("\n{lines:>6}  {name}");
    }
    told
}

/// Counts lines that are neither blank nor a comment, up to the tests at a file's end.
fn lines_of_code(text: &str) -> usize {
    let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    code.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//")).count()
}

/// Returns whether a file holds nothing but tests.
fn is_test(name: &str) -> bool {
    let stem = name.rsplit('/').next().unwrap_or(name).trim_end_matches(".rs");
    let is_model = name.split('/').any(|part| part.starts_with("model"));
    stem.ends_with("tests") || is_model || stem.ends_with("fixture") || stem.contains("fake")
}

/// The test binary of the runtime, whose run has left its counters in `profiles`.
fn run_tests(folder: &Path, profiles: &Path) -> Result<PathBuf> {
    let mut test = cargo();
    test.args(["test", "--package", "xmhf-runtime", "--lib"])
        .env("CARGO_TARGET_DIR", folder)
        .env("RUSTFLAGS", "-Cinstrument-coverage")
        .env("LLVM_PROFILE_FILE", profiles.join("%m-%p.profraw"));
    let built = process::output(test.args(["--no-run", "--message-format=json"]))?;
    let binary = executable(&built).context("cargo names no test binary")?;
    let mut run = Command::new(&binary);
    run.arg("--quiet").current_dir(paths::root().join("runtime"));
    // The counters make frames larger.
    run.env("RUST_MIN_STACK", "33554432");
    process::run(run.env("LLVM_PROFILE_FILE", profiles.join("%m-%p.profraw")))?;
    Ok(binary)
}

/// The test binary among Cargo's messages, one JSON object a line.
fn executable(messages: &str) -> Option<PathBuf> {
    messages.lines().rev().find_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        Some(message.get("executable")?.as_str()?.into())
    })
}

/// A tool of LLVM that reads the compiler's profiles: of the toolchain, or of the same version of LLVM.
fn tool(name: &str) -> Result<Command> {
    let mut rustc = Command::new("rustc");
    let about = process::output(rustc.args(["-vV", "--print", "sysroot"]).current_dir(paths::root()))?;
    let version = about.lines().find_map(|line| line.strip_prefix("LLVM version: "));
    let version = version.and_then(|version| version.split('.').next()).context("rustc has no LLVM")?;
    let sysroot = about.lines().find(|line| line.starts_with('/')).unwrap_or_default();
    let of_toolchain = Path::new(sysroot).join("lib/rustlib/x86_64-unknown-linux-gnu/bin").join(name);
    let versioned = format!("/usr/lib/llvm-{version}/bin/{name}");
    for program in [of_toolchain, versioned.into()] {
        if program.exists() {
            return Ok(Command::new(program));
        }
    }
    bail!("no {name} of LLVM {version}: `tools/xmhf coverage` installs Debian's package llvm-{version}")
}

/// Lines of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Lines {
    file: String,
    executed: u64,
    all: u64,
}

/// Lines of every measured file.
#[derive(Debug)]
struct Table(Vec<Lines>);

impl Table {
    /// Reads what `llvm-cov export -summary-only` writes.
    fn of_export(json: &str, root: &Path) -> Result<Self> {
        let export: Value = serde_json::from_str(json).context("llvm-cov wrote no JSON")?;
        let files = export.pointer("/data/0/files").and_then(Value::as_array).context("no files")?;
        let mut lines: Vec<_> = files.iter().filter_map(|file| Lines::of_file(file, root)).collect();
        ensure!(!lines.is_empty(), "nothing below {MEASURED} was compiled");
        lines.sort_by(|a, b| a.file.cmp(&b.file));
        Ok(Self(lines))
    }

    fn sum(&self, count: impl Fn(&Lines) -> u64) -> u64 {
        self.0.iter().map(count).sum()
    }

    /// Returns the files below a folder.
    fn below(&self, folder: &str) -> Self {
        let files = self.0.iter().filter(|lines| lines.file.starts_with(folder));
        Self(files.cloned().collect())
    }

    fn percent(&self) -> f64 {
        percent(self.sum(|lines| lines.executed), self.sum(|lines| lines.all))
    }
}

impl Lines {
    fn of_file(file: &Value, root: &Path) -> Option<Self> {
        let path = Path::new(file.get("filename")?.as_str()?);
        let name = path.strip_prefix(root).unwrap_or(path).to_str()?.strip_prefix(MEASURED)?;
        let count = |key| file.pointer(&format!("/summary/lines/{key}")).and_then(Value::as_u64);
        (!is_test(name)).then_some(Self {
            file: name.to_owned(),
            executed: count("covered")?,
            all: count("count")?,
        })
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Lines { file, executed, all } in &self.0 {
            writeln!(f, "{:>6.1} %  {executed:>5} of {all:>5}  {file}", percent(*executed, *all))?;
        }
        let (executed, all) = (self.sum(|lines| lines.executed), self.sum(|lines| lines.all));
        write!(f, "{:>6.1} %  {executed:>5} of {all:>5}  lines of {MEASURED}", self.percent())
    }
}

#[expect(clippy::cast_precision_loss, reason = "there are not 2^52 lines")]
fn percent(executed: u64, all: u64) -> f64 {
    100.0 * executed as f64 / (all.max(1)) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_counts_code_and_not_tests() {
        let file = |name: &str, covered: u64| {
            format!(r#"{{"filename":"/x/{name}","summary":{{"lines":{{"count":10,"covered":{covered}}}}}}}"#)
        };
        let files = [
            file("runtime/src/vmx/nested/memory/vpid.rs", 9),
            file("runtime/src/vmx/nested/entry/checks/controls.rs", 10),
            file("runtime/src/vmx/nested/entry/checks/model_guest.rs", 0),
            file("runtime/src/vmx/nested/model/route.rs", 0),
            file("runtime/src/vmx/nested/memory/vpid_tests.rs", 0),
            file("runtime/src/vcpu/fake.rs", 0),
            file("runtime/src/vmx/run.rs", 2),
            file("lib/x86/src/cr.rs", 0),
        ];
        let json = format!(r#"{{"data":[{{"files":[{}]}}]}}"#, files.join(","));
        let table = Table::of_export(&json, Path::new("/x")).unwrap();
        let names: Vec<_> = table.0.iter().map(|lines| lines.file.as_str()).collect();
        assert_eq!(names, ["vmx/nested/entry/checks/controls.rs", "vmx/nested/memory/vpid.rs", "vmx/run.rs"]);
        assert!((table.percent() - 70.0).abs() < 1e-9);
        assert!((table.below("vmx/nested/").percent() - 95.0).abs() < 1e-9);
        assert!(table.to_string().ends_with("70.0 %     21 of    30  lines of runtime/src/"));
        assert!(Table::of_export(r#"{"data":[{"files":[]}]}"#, Path::new("/x")).is_err());
    }

    #[test]
    fn the_last_binary_that_cargo_names_is_the_test() {
        let messages =
            "{\"executable\":null}\n{\"executable\":\"/t/runtime-1\"}\n{\"reason\":\"build-finished\"}\n";
        assert_eq!(executable(messages), Some("/t/runtime-1".into()));
    }

    #[test]
    fn what_the_machine_alone_compiles_is_told_by_its_lines_of_code() {
        let lines = |file: &str| Lines { file: file.to_owned(), executed: 1, all: 1 };
        let sources = [
            Source::new("runtime/src/tested.rs", "fn tested() {}\n"),
            Source::new("runtime/src/mod.rs", "mod tested;\n"),
            Source::new("runtime/src/tested_tests.rs", "fn test() {}\n"),
            Source::new("lib/x86/src/cr.rs", "fn other() {}\n"),
            Source::new(
                "runtime/src/short.rs",
                "//! Short.\n\nfn short() {}\n#[cfg(test)]\nmod tests {\n}\n",
            ),
            Source::new("runtime/src/long.rs", "fn long() {\n    // Why.\n    short();\n}\n"),
        ];
        let told = machine_alone(&Table(vec![lines("tested.rs")]), &sources);
        let wanted = "4 lines of code in 2 files are the machine's alone:\n     3  long.rs\n     1  short.rs";
        assert_eq!(told, wanted);
    }
}
