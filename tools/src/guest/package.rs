//! Debian packages fetched and unpacked privately, never installed.

use crate::process::output;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Folder in which the files of `package` lie as in the root of a system that has it.
///
/// Fetched once; later calls find it there. Two that fetch at the same time do not disturb each other.
///
/// # Errors
///
/// The package cannot be fetched or unpacked.
pub(super) fn unpacked(package: &str) -> Result<PathBuf> {
    let folder = crate::paths::guests().join("packages").join(package);
    if folder.is_dir() {
        return Ok(folder);
    }
    let above = folder.with_file_name("");
    fs::create_dir_all(&above)?;
    let scratch = tempfile::tempdir_in(&above)?;
    println!("fetching Debian's package {package}, which is unpacked privately and not installed");
    fetch(package, scratch.path()).with_context(|| format!("package {package}"))?;
    // Another process may have been faster, which is as good.
    if let Err(why) = fs::rename(scratch.path().join("root"), &folder) {
        ensure!(folder.is_dir(), "unpacking {package}: {why}");
    }
    Ok(folder)
}

/// Name of the package that the meta package `package` stands for, its first dependency called `prefix...`.
///
/// # Errors
///
/// The package lists are missing or do not have it.
pub(super) fn dependency(package: &str, prefix: &str) -> Result<String> {
    let text = output(Command::new("apt-cache").args(["depends", package]))?;
    first_dependency(&text, prefix)
        .with_context(|| format!("{package} is not in the package lists (run apt-get update)"))
}

fn first_dependency(text: &str, prefix: &str) -> Option<String> {
    let names = text.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    names.map(str::to_owned).find(|name| name.starts_with(prefix))
}

fn fetch(package: &str, folder: &Path) -> Result<()> {
    output(Command::new("apt-get").args(["-q", "download", package]).current_dir(folder))?;
    let files: Vec<PathBuf> =
        fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<_, std::io::Error>>()?;
    let archive = files.iter().find(|file| file.extension().is_some_and(|end| end == "deb"));
    let archive = archive.context("apt-get left no file")?;
    output(Command::new("dpkg-deb").arg("--extract").arg(archive).arg(folder.join("root")))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_meta_package_leads_to_the_versioned_one() {
        let text = "linux-image-cloud-amd64\n  Depends: other\n  Depends: linux-image-6.1.0-56-cloud-amd64\n";
        let found = first_dependency(text, "linux-image-");
        assert_eq!(found.as_deref(), Some("linux-image-6.1.0-56-cloud-amd64"));
        assert_eq!(first_dependency("", "linux-image-"), None);
    }
}
