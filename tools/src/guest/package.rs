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
pub(crate) fn unpacked(package: &str) -> Result<PathBuf> {
    let folder = crate::paths::guests().join("packages").join(package);
    keep(package, &folder, |scratch| fetch(&Apt::System, package, scratch))?;
    Ok(folder)
}

/// As [`unpacked`], from Debian's part `non-free`, which the system's sources need not name.
///
/// # Errors
///
/// As [`unpacked`].
pub(crate) fn unpacked_non_free(package: &str) -> Result<PathBuf> {
    let folder = crate::paths::guests().join("packages").join(package);
    keep(package, &folder, |scratch| fetch(&Apt::non_free(scratch.join("apt"))?, package, scratch))?;
    Ok(folder)
}

/// As [`unpacked`], of what the meta package `package` of the architecture i386 stands for, see [`dependency`]; and
/// its name.
///
/// # Errors
///
/// As [`unpacked`], and [`dependency`].
pub(super) fn unpacked_i386(package: &str, prefix: &str) -> Result<(PathBuf, String)> {
    let folder = crate::paths::guests().join("packages").join(format!("{package}-i386"));
    let place = |scratch: &Path| {
        let apt = Apt::i386(scratch.join("apt"))?;
        let name = apt.dependency(package, prefix)?;
        fetch(&apt, &name, scratch)?;
        Ok(fs::write(scratch.join("root/name"), name)?)
    };
    keep(package, &folder, place)?;
    let name = fs::read_to_string(folder.join("name"))?;
    Ok((folder, name))
}

/// Has `place` put the files of `package` into `root` of a new folder, unless `folder` has them already.
fn keep(package: &str, folder: &Path, place: impl Fn(&Path) -> Result<()>) -> Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let above = folder.with_file_name("");
    fs::create_dir_all(&above)?;
    let scratch = tempfile::tempdir_in(&above)?;
    println!("fetching Debian's package {package}, which is unpacked privately and not installed");
    place(scratch.path()).with_context(|| format!("package {package}"))?;
    // Another process may have been faster, which is as good.
    if let Err(why) = fs::rename(scratch.path().join("root"), folder) {
        ensure!(folder.is_dir(), "unpacking {package}: {why}");
    }
    Ok(())
}

/// Name of the package that the meta package `package` stands for, its first dependency called `prefix...`.
///
/// # Errors
///
/// The package lists are missing or do not have it.
pub(super) fn dependency(package: &str, prefix: &str) -> Result<String> {
    Apt::System.dependency(package, prefix)
}

/// Lists of packages.
#[derive(Debug)]
enum Apt {
    /// The system's.
    System,
    /// Others, by these settings, in a folder of their own: the system's stay as they are.
    Private(Vec<String>),
}

impl Apt {
    /// Fetches the lists of i386, from the system's sources.
    fn i386(folder: PathBuf) -> Result<Self> {
        Self::private(&folder, ["APT::Architecture=i386".into(), "APT::Architectures::=i386".into()])
    }

    /// Fetches the lists of Debian's part `non-free`, from where the system has the part `main`.
    fn non_free(folder: PathBuf) -> Result<Self> {
        let mut targets = Command::new("apt-get");
        targets.args([
            "indextargets",
            "--format",
            "$(REPO_URI) $(CODENAME)",
            "Created-By: Packages",
            "Component: main",
        ]);
        let sources = non_free_sources(&output(targets.arg("Origin: Debian"))?);
        let file = folder.join("sources.list");
        fs::create_dir_all(&folder)?;
        fs::write(&file, sources)?;
        let place = |key: &str, path: &Path| format!("{key}={}", path.display());
        Self::private(
            &folder,
            [place("Dir::Etc::sourcelist", &file), place("Dir::Etc::sourceparts", &folder.join("none"))],
        )
    }

    fn private(folder: &Path, more: [String; 2]) -> Result<Self> {
        for part in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(folder.join(part))?;
        }
        fs::write(folder.join("status"), "")?;
        let place = |key: &str, name: &str| format!("{key}={}", folder.join(name).display());
        let mut settings = vec![
            "Acquire::Languages=none".into(),
            // The folder is not open to apt's own user.
            "APT::Sandbox::User=".into(),
            place("Dir::State::lists", "lists"),
            place("Dir::State::status", "status"),
            place("Dir::Cache", "cache"),
        ];
        settings.extend(more);
        let apt = Self::Private(settings);
        // A source without these lists is an error to apt, and none to us as long as another one has the package.
        let _ = output(apt.command("apt-get").arg("update"));
        Ok(apt)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.arg("-q");
        if let Self::Private(settings) = self {
            settings.iter().for_each(|setting| {
                command.args(["-o", setting]);
            });
        }
        command
    }

    fn dependency(&self, package: &str, prefix: &str) -> Result<String> {
        let text = output(self.command("apt-cache").args(["depends", package]))?;
        first_dependency(&text, prefix)
            .with_context(|| format!("{package} is not in the package lists (run apt-get update)"))
    }
}

fn first_dependency(text: &str, prefix: &str) -> Option<String> {
    let names = text.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    names.map(str::to_owned).find(|name| name.starts_with(prefix))
}

/// A source of `non-free` for each line with the address and the release of one of `main`.
fn non_free_sources(targets: &str) -> String {
    const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
    let mut lines: Vec<String> = targets
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(address, release)| format!("deb [signed-by={KEYRING}] {address} {release} non-free\n"))
        .collect();
    lines.sort();
    lines.dedup();
    lines.concat()
}

fn fetch(apt: &Apt, package: &str, folder: &Path) -> Result<()> {
    output(apt.command("apt-get").args(["download", package]).current_dir(folder))?;
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
    fn each_source_is_asked_for_its_other_part_once() {
        let text = "http://mirror/debian/ bookworm\nhttp://mirror/debian/ bookworm\nhttp://mirror/security/ bookworm-security\n";
        let sources = non_free_sources(text);
        assert_eq!(sources.lines().count(), 2);
        assert!(sources.starts_with("deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://mirror/debian/ bookworm non-free\n"));
        assert_eq!(non_free_sources(""), "");
    }

    #[test]
    fn a_meta_package_leads_to_the_versioned_one() {
        let text = "linux-image-cloud-amd64\n  Depends: other\n  Depends: linux-image-6.1.0-56-cloud-amd64\n";
        let found = first_dependency(text, "linux-image-");
        assert_eq!(found.as_deref(), Some("linux-image-6.1.0-56-cloud-amd64"));
        assert_eq!(first_dependency("", "linux-image-"), None);
    }
}
