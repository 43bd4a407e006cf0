//! `tools/xmhf lint`: what the compiler checks, then the house rules, one a file.

mod behaviours;
mod circles;
mod citations;
mod dependencies;
mod file_names;
mod file_sizes;
mod links;
mod manual_words;
mod modules;
pub(crate) mod sources;
mod test_names;
mod unsafe_opt_in;
mod vendor_words;

use crate::pal::Platform;
use crate::toolchain::{bare_cargo, cargo, source_cargo};
use crate::{doc, paths, process, progress};
use anyhow::{Result, ensure};
use sources::Source;
use std::fmt;
use std::process::Command;

/// A place that breaks a house rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// Path from the workspace's root.
    path: String,
    /// Line, counted from 1; 0 for the file as a whole.
    line: usize,
    /// What is wrong and what would be right.
    text: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.text)
    }
}

/// Checks house rules, dependencies, format, compiler lints on host and bare target, and documentation.
///
/// # Errors
///
/// The first group that has findings; they are printed.
pub fn run() -> Result<()> {
    house_rules()?;
    dependencies::check()?;
    process::run(cargo().args(["fmt", "--all", "--check"]))?;
    const STRICT: [&str; 3] = ["--", "-D", "warnings"];
    let lint = |what: &str, clippy: &mut Command| progress::cargo(what, clippy.args(STRICT));
    let clippy = ["clippy", "--keep-going", "--all-targets"];
    lint("linting what runs on the host", cargo().args(clippy))?;
    for (what, packages) in
        [("the loaders", LOADERS), ("the hypervisor", RUNTIMES), ("the bare guests", GUESTS)]
    {
        let images = packages.iter().map(|package| format!("--package={package}"));
        let mut clippy = bare_cargo("clippy")?;
        lint(&format!("linting {what}"), clippy.args(["--keep-going", "--all-features"]).args(images))?;
    }
    for platform in Platform::LINUX {
        let mut clippy = source_cargo("clippy", &platform.target(), "core,compiler_builtins")?;
        let packages = ["--package=xmhf-pal-demo", "--package=xmhf-pal-c"];
        lint(
            &format!("linting the PAL programs for {platform:?}"),
            clippy.arg("--keep-going").args(packages),
        )?;
    }
    let mut documentation = cargo();
    documentation.args(["doc", "--keep-going", "--no-deps", "--document-private-items"]);
    progress::cargo("making the documentation", documentation.env("RUSTDOCFLAGS", "-D warnings"))?;
    doc::make()?;
    Ok(())
}

/// Packages that boot the hypervisor.
const LOADERS: &[&str] = &["xmhf-bootloader", "xmhf-secureloader"];
/// The hypervisor; apart, as what it wants of a crate must not come into the measured loader.
const RUNTIMES: &[&str] = &["xmhf-runtime", "xmhf-hypapps"];
/// Bare test guests; apart, for their features must not reach the images.
const GUESTS: &[&str] = &["xmhf-guest"];

fn house_rules() -> Result<()> {
    let sources = sources::read_all(paths::root())?;
    let mut findings = check(&sources);
    findings.extend(behaviours::check(paths::root(), &sources)?);
    findings.extend(links::check(paths::root())?);
    findings.extend(circles::check(&sources)?);
    for finding in &findings {
        println!("{finding}");
    }
    ensure!(findings.is_empty(), "{} places break a house rule", findings.len());
    Ok(())
}

fn check(sources: &[Source]) -> Vec<Finding> {
    const RULES: [fn(&Source) -> Vec<Finding>; 7] = [
        citations::check,
        file_names::check,
        file_sizes::check,
        manual_words::check,
        test_names::check,
        unsafe_opt_in::check,
        vendor_words::check,
    ];
    sources.iter().flat_map(|source| RULES.iter().flat_map(|rule| rule(source))).collect()
}
