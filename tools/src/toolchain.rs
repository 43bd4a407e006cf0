//! Cargo for the bare target: core built from source, for a target that rustc has no copy of.

use crate::{paths, process};
use anyhow::{Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Stem of the target description at the workspace's root.
pub const BARE_TARGET: &str = "x86_64-xmhf";
/// Linkers in the order of preference where the toolchain has no rust-lld.
const LINKERS: [&str; 6] = ["ld.lld-22", "ld.lld", "ld.lld-21", "ld.lld-20", "ld.lld-19", "ld.lld-14"];

/// The cargo that runs this runner, or the one in PATH.
#[must_use]
pub fn cargo() -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.current_dir(paths::root());
    command
}

/// `cargo VERB` for the bare target, in release mode; the caller adds packages.
///
/// # Errors
///
/// The toolchain lacks the standard library's source, or there is no linker.
pub fn bare_cargo(verb: &str) -> Result<Command> {
    let mut command =
        source_cargo(verb, Path::new(&format!("{BARE_TARGET}.json")), "core,alloc,compiler_builtins")?;
    // Added to those of `.cargo/config.toml`, which an environment variable would replace.
    let flags: Vec<String> = renamed_paths(&sysroot()?).map(|flag| format!("{flag:?}")).into();
    command.args(["--config", &format!("target.{BARE_TARGET}.rustflags=[{}]", flags.join(","))]);
    Ok(command)
}

/// Options that give the folders of this machine and user other names, so that the same sources make the same images
/// everywhere: panics and symbols tell of source files. The last that fits counts.
fn renamed_paths(sysroot: &Path) -> [String; 3] {
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cargo");
    let cargo = std::env::var_os("CARGO_HOME").map_or_else(home, PathBuf::from);
    let sources = sysroot.join("lib/rustlib/src/rust");
    [(paths::root(), "/xmhf"), (&cargo, "/cargo"), (&sources, "/rust")]
        .map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display()))
}

/// The toolchain's folder.
fn sysroot() -> Result<PathBuf> {
    // Asked in the tree, whose rust-toolchain.toml has a say.
    let mut rustc = Command::new("rustc");
    let sysroot = process::output(rustc.args(["--print", "sysroot"]).current_dir(paths::root()))?;
    Ok(PathBuf::from(sysroot.trim()))
}

/// `cargo VERB` in release mode for the target that the file describes. The library's `crates` are built from source.
///
/// # Errors
///
/// The toolchain lacks the standard library's source, or there is no linker.
pub fn source_cargo(verb: &str, target: &Path, crates: &str) -> Result<Command> {
    let sysroot = sysroot()?;
    ensure!(
        sysroot.join("lib/rustlib/src/rust/library/core/Cargo.toml").exists(),
        "the toolchain has no source of the standard library: `rustup component add rust-src`, or let tools/xmhf \
         install Debian's rust-web-src"
    );
    let mut command = cargo();
    command
        .args([verb, "--release", "--target"])
        .arg(target)
        .args(["-Zjson-target-spec", &format!("-Zbuild-std={crates}")])
        .arg("-Zbuild-std-features=compiler-builtins-mem")
        // The options above are unstable; this lets the pinned stable compiler take them.
        .env("RUSTC_BOOTSTRAP", "1");
    let name = target.file_stem().unwrap_or_default().to_string_lossy().to_uppercase().replace('-', "_");
    // Those for Windows name mingw-w64's linkers.
    if !name.ends_with("WINDOWS")
        && !sysroot.join("lib/rustlib/x86_64-unknown-linux-gnu/bin/rust-lld").exists()
    {
        let linker = LINKERS.into_iter().find(|linker| exists(linker));
        ensure!(linker.is_some(), "no LLVM linker found, tried {LINKERS:?}");
        command.env(format!("CARGO_TARGET_{name}_LINKER"), linker.unwrap_or_default());
    }
    Ok(command)
}

/// Folder of Cargo's release builds for the bare target.
#[must_use]
pub fn bare_release() -> PathBuf {
    release(BARE_TARGET)
}

/// Folder of Cargo's release builds for a target, by its name.
#[must_use]
pub fn release(target: &str) -> PathBuf {
    let folder =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| paths::root().join("target"), PathBuf::from);
    folder.join(target).join("release")
}

/// Names of the binaries that Cargo finds in `folder`: files `NAME.rs` and folders `NAME/main.rs`, sorted.
///
/// # Errors
///
/// The folder exists and cannot be read.
pub fn binaries(folder: &Path) -> std::io::Result<Vec<String>> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let mut names = Vec::new();
    for entry in folder.read_dir()? {
        let path = entry?.path();
        let is_binary = path.extension().is_some_and(|e| e == "rs") || path.join("main.rs").exists();
        if let Some(name) = path.file_stem().filter(|_| is_binary) {
            names.push(name.to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

fn exists(program: &str) -> bool {
    process::output(Command::new(program).arg("--version")).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn each_folder_of_this_machine_gets_another_name() {
        let [tree, cargo, rust] = renamed_paths(Path::new("/toolchain"));
        assert_eq!(tree, format!("--remap-path-prefix={}=/xmhf", paths::root().display()));
        assert!(cargo.ends_with("=/cargo"), "{cargo}");
        assert_eq!(rust, "--remap-path-prefix=/toolchain/lib/rustlib/src/rust=/rust");
    }

    #[test]
    fn binaries_are_files_and_folders_as_cargo_finds_them() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("quiesce.rs"), "").unwrap();
        fs::create_dir_all(folder.path().join("trustvisor")).unwrap();
        fs::write(folder.path().join("trustvisor/main.rs"), "").unwrap();
        fs::create_dir_all(folder.path().join("notes")).unwrap();
        fs::write(folder.path().join("README.md"), "").unwrap();
        assert_eq!(binaries(folder.path()).unwrap(), ["quiesce", "trustvisor"]);
        assert!(binaries(&folder.path().join("absent")).unwrap().is_empty());
    }
}
