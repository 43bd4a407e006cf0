//! The same sources make the same images, whoever builds them and where.

use super::job::{Job, Verdict};
use crate::{paths, process};
use anyhow::{Context, Result};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

struct Scenario {
    name: &'static str,
}

const SCENARIO: Scenario = Scenario { name: "reproducible" };
/// What GRUB loads; one hypapp stands for all.
const FILES: [&str; 2] = ["xmhf-bootloader", "xmhf-helloworld.bin"];
/// What is no source.
const SKIPPED: [&str; 2] = ["target", ".git"];

/// One job.
pub(super) fn jobs() -> Vec<Job> {
    let name = format!("run/{}", SCENARIO.name);
    vec![Job { name, group: "linux", seconds: 200, needs: None, work: Box::new(test) }]
}

/// Builds a copy of this tree in another folder, with another folder of Cargo's, and compares.
fn test(folder: &Path) -> Result<Verdict> {
    // Not below this tree, whose settings Cargo would find there.
    let other = tempfile::Builder::new().prefix("xmhf elsewhere ").tempdir()?;
    let (tree, home) = (other.path().join("tree"), other.path().join("cargo"));
    copy(paths::root(), &tree).context("copying the tree")?;
    fs::create_dir_all(&home)?;
    symlink(registry()?, home.join("registry"))?;
    // This very program, even where a test has built it anew since: its path would then name no file.
    let mut build = Command::new("/proc/self/exe");
    build.args(["image", "--out"]).arg(folder).env("XMHF_ROOT", &tree).env("CARGO_HOME", &home);
    process::output(build.env_remove("CARGO_TARGET_DIR").current_dir(&tree))?;
    for file in FILES {
        let (ours, others) =
            (fs::read(paths::boot().join(file))?, fs::read(tree.join("target/xmhf/boot").join(file))?);
        if ours != others {
            let at = ours.iter().zip(&others).position(|(one, other)| one != other).unwrap_or(ours.len());
            let sizes = (ours.len(), others.len());
            return Ok(Verdict::failed(format!("{file} differs from byte {at:#x} on, of sizes {sizes:?}")));
        }
    }
    Ok(Verdict::Passed)
}

/// Cargo's folder of crates, which are not fetched once more.
fn registry() -> Result<PathBuf> {
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo"));
    let cargo = std::env::var_os("CARGO_HOME").map(PathBuf::from).or_else(home);
    Ok(cargo.context("no HOME")?.join("registry"))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in from.read_dir()? {
        let entry = entry?;
        let (path, place) = (entry.path(), to.join(entry.file_name()));
        if SKIPPED.iter().any(|name| entry.file_name() == *name) {
            continue;
        }
        if entry.file_type()?.is_dir() {
            copy(&path, &place)?;
        } else {
            fs::copy(&path, &place).with_context(|| path.display().to_string())?;
        }
    }
    Ok(())
}
