//! GRUB for BIOS machines, from Debian's package grub-pc-bin.
//!
//! The core image is compressed, and to expand it costs the machine hundreds of instructions a byte, where
//! reading a module from the disk costs some twenty. So the core holds no more than it takes to read its
//! partition, and the boot script, which runs in GRUB's kernel without its menu, loads the modules it needs.

use crate::process::output;
use anyhow::{Context, Result};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const FOLDER: &str = "/usr/lib/grub/i386-pc";
const PACKAGE: &str = "GRUB (Debian packages grub-common and grub-pc-bin)";
/// Modules inside the core image: the BIOS's disks, partition table, file system.
const CORE_MODULES: [&str; 3] = ["biosdisk", "part_msdos", "fat"];

/// The code of the boot sector.
///
/// # Errors
///
/// GRUB is not installed.
pub fn boot_sector() -> Result<Vec<u8>> {
    read(Path::new(FOLDER).join("boot.img"))
}

/// The core image, which loads `modules` from its own disk's first partition and runs `script`, GRUB commands
/// one a line.
///
/// # Errors
///
/// `grub-mkimage` is missing or fails.
pub fn core(modules: &[&str], script: &str) -> Result<Vec<u8>> {
    let folder = tempfile::tempdir()?;
    let configuration = folder.path().join("script");
    let core = folder.path().join("core");
    let loads: String = modules.iter().map(|name| format!("insmod {name}\n")).collect();
    fs::write(&configuration, loads + script)?;
    let format = ["--format=i386-pc", "--prefix=(,msdos1)/boot/grub"];
    let mut command = Command::new("grub-mkimage");
    command.args(format).arg("--config").arg(configuration).arg("--output").arg(&core).args(CORE_MODULES);
    output(&mut command).context(PACKAGE)?;
    read(core)
}

/// Path on the disk, and contents, of every file that `modules` need beside the core image.
///
/// # Errors
///
/// GRUB is not installed, or does not have such a module.
pub fn module_files(modules: &[&str]) -> Result<Vec<(String, Vec<u8>)>> {
    let list = read(Path::new(FOLDER).join("moddep.lst"))?;
    let names = closure(&String::from_utf8_lossy(&list), modules);
    let file = |name: &String| {
        let name = format!("{name}.mod");
        Ok((format!("/boot/grub/i386-pc/{name}"), read(Path::new(FOLDER).join(name))?))
    };
    names.iter().map(file).collect()
}

/// `modules` and all that they depend on, less what the core has, by a list of lines `NAME: DEPENDENCY...`.
fn closure(list: &str, modules: &[&str]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut open: Vec<&str> = modules.to_vec();
    while let Some(name) = open.pop() {
        if CORE_MODULES.contains(&name) || !found.insert(name.to_owned()) {
            continue;
        }
        let line = list.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        open.extend(line.unwrap_or_default().split_whitespace());
    }
    found
}

fn read(path: PathBuf) -> Result<Vec<u8>> {
    fs::read(&path).with_context(|| format!("{PACKAGE}: {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_followed_once_and_the_core_has_its_own() {
        let list = "linux: boot fat video\nlinux16: linux\nvideo:\nboot: linux\n";
        let found = closure(list, &["linux16"]);
        assert_eq!(
            found.iter().map(String::as_str).collect::<Vec<_>>(),
            ["boot", "linux", "linux16", "video"]
        );
    }
}
