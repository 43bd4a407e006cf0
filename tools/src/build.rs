//! `tools/xmhf build`: the bootloader and one hypervisor image for each hypapp.

use crate::toolchain::{bare_cargo, bare_release, binaries};
use crate::{pack, paths, process, progress};
use anyhow::{Context, Result, ensure};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const BOOTLOADER: &str = "xmhf-bootloader";
const SECURE_LOADER: &str = "xmhf-secureloader";
const HYPAPPS: &str = "xmhf-hypapps";
/// The hypapp of [`build_counting`], which is under no user's eyes.
const COUNTING: &str = "vmcs_accesses";

/// What a build leaves behind.
#[derive(Clone, Debug)]
pub struct Build {
    /// The bootloader, without symbols, as GRUB loads it.
    pub bootloader: PathBuf,
    /// Each hypapp's name and hypervisor image.
    pub hypervisors: Vec<(String, PathBuf)>,
}

/// Builds everything that boots; does nothing where nothing changed.
///
/// # Errors
///
/// A compiler or linker error, already shown, or an image that breaks a rule of [`pack`].
pub fn build() -> Result<Build> {
    build_these(hypapps()?, &[])
}

/// Builds what boots with `hypapp`: linking each takes a while.
///
/// # Errors
///
/// As for [`build`]; or there is no such hypapp, and the error lists those that are.
pub fn build_with(hypapp: &str) -> Result<Build> {
    build_only(&BTreeSet::from([hypapp]))
}

/// Builds what boots with each of `hypapps`.
///
/// # Errors
///
/// As for [`build_with`].
pub fn build_only(hypapps: &BTreeSet<&str>) -> Result<Build> {
    let all = self::hypapps()?;
    let names = hypapps.iter().map(|name| known(name, &all)).collect::<Result<Vec<_>>>()?;
    let selected: Vec<_> = hypapps.iter().flat_map(|name| ["--bin", name]).collect();
    build_these(names, &selected)
}

fn hypapps() -> Result<Vec<String>> {
    let hypapps = binaries(&paths::root().join("hypapps/src/bin"))?;
    ensure!(!hypapps.is_empty(), "hypapps/src/bin holds no hypapp");
    Ok(hypapps)
}

fn known(hypapp: &str, hypapps: &[String]) -> Result<String> {
    ensure!(
        hypapps.iter().any(|name| name == hypapp),
        "no hypapp {hypapp}; there are: {}",
        hypapps.join(", ")
    );
    Ok(hypapp.into())
}

/// `selected` is what Cargo is told beside the hypapps' package.
fn build_these(hypapps: Vec<String>, selected: &[&str]) -> Result<Build> {
    // Apart: what hypapps want of a crate must not come into the measured loader.
    for (what, packages, selected) in [
        ("building the loaders", &[BOOTLOADER, SECURE_LOADER][..], &[][..]),
        ("building the hypervisor, a minute or two at first", &[HYPAPPS], selected),
    ] {
        let packages = packages.iter().map(|package| format!("--package={package}"));
        progress::cargo(what, bare_cargo("build")?.args(selected).args(packages))?;
    }

    fs::create_dir_all(paths::boot())?;
    fs::create_dir_all(paths::elf())?;
    let bootloader = paths::boot().join(BOOTLOADER);
    strip(&keep_elf(BOOTLOADER)?, &bootloader)?;
    let loader = keep_elf(SECURE_LOADER)?;
    let mut hypervisors = Vec::new();
    for name in hypapps {
        let path = image_of(&loader, &name)?;
        hypervisors.push((name, path));
    }
    Ok(Build { bootloader, hypervisors })
}

/// Builds, beside what [`build`] has built, the image that counts how often it executes VMREAD and VMWRITE, and
/// gives its hypapp's name. The others have nothing that counts.
///
/// # Errors
///
/// As for [`build`].
pub fn build_counting() -> Result<&'static str> {
    let package = format!("--package={HYPAPPS}");
    let arguments = [&package, "--bin", COUNTING, "--features=count-vmcs-accesses"];
    progress::cargo("building the hypervisor that counts", bare_cargo("build")?.args(arguments))?;
    image_of(&paths::elf().join(SECURE_LOADER), COUNTING)?;
    Ok(COUNTING)
}

/// Makes the image of the hypapp `name`.
fn image_of(loader: &Path, name: &str) -> Result<PathBuf> {
    let runtime = keep_elf(name)?;
    let image =
        pack::pack(&fs::read(loader)?, &fs::read(&runtime)?).with_context(|| format!("hypapp {name}"))?;
    let path = paths::boot().join(format!("xmhf-{name}.bin"));
    write_if_changed(&path, &image)?;
    Ok(path)
}

/// Prints what a build made and how large it is.
///
/// # Errors
///
/// A file has vanished meanwhile.
pub fn report(build: &Build) -> Result<()> {
    let loader =
        pack::flatten(&fs::read(paths::elf().join(SECURE_LOADER))?, platform::handoff::VIRTUAL_BASE)?;
    println!("{:>9} bytes  secure loader, of {} measured", loader.len(), platform::handoff::LOADER_SIZE);
    for path in [&build.bootloader].into_iter().chain(build.hypervisors.iter().map(|(_, path)| path)) {
        println!("{:>9} bytes  {}", fs::metadata(path)?.len(), path.display());
    }
    Ok(())
}

/// Copies the executable `name` with its symbols to where runs find them for their backtraces.
fn keep_elf(name: &str) -> Result<PathBuf> {
    let built = bare_release().join(name);
    let kept = paths::elf().join(name);
    let bytes = fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?;
    write_if_changed(&kept, &bytes)?;
    Ok(kept)
}

fn strip(elf: &Path, stripped: &Path) -> Result<()> {
    let temporary = stripped.with_extension("new");
    process::run(Command::new("strip").arg("--strip-all").arg("-o").arg(&temporary).arg(elf))?;
    let bytes = fs::read(&temporary)?;
    fs::remove_file(&temporary)?;
    write_if_changed(stripped, &bytes)
}

/// Leaves a file alone that already holds `bytes`, so that what is made from it stays fresh.
fn write_if_changed(path: &Path, bytes: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_hypapp_is_answered_with_those_there_are() {
        let hypapps = ["helloworld".into(), "quiesce".into()];
        assert_eq!(known("quiesce", &hypapps).unwrap(), "quiesce");
        let error = known("lockdown", &hypapps).unwrap_err().to_string();
        assert_eq!(error, "no hypapp lockdown; there are: helloworld, quiesce");
    }

    #[test]
    fn an_unchanged_file_keeps_its_date() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image");
        write_if_changed(&path, b"one").unwrap();
        let old = std::time::SystemTime::UNIX_EPOCH;
        fs::File::options().write(true).open(&path).unwrap().set_modified(old).unwrap();
        write_if_changed(&path, b"one").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), old);
        write_if_changed(&path, b"two").unwrap();
        assert_ne!(fs::metadata(&path).unwrap().modified().unwrap(), old);
        assert_eq!(fs::read(&path).unwrap(), b"two");
    }
}
