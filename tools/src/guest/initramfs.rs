//! The Linux guest's userspace: init, busybox, a 32-bit program, the PAL programs and kernel modules, in one
//! uncompressed archive.

use super::package;
use crate::pal::{self, Platform};
use crate::process::output;
use crate::sdk_example::{self, Example};
use crate::toolchain::cargo;
use crate::{paths, progress};
use anyhow::{Context, Result};
use cpio::newc::{Builder, ModeFileType, trailer};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

const TARGET: &str = "x86_64-unknown-linux-gnu";
/// Device numbers of `/dev/console` (Linux, "Linux allocated devices").
const CONSOLE: (u32, u32) = (5, 1);

/// Builds the programs and packs them, with `l2` those for a guest of a guest too, and kernel modules into `lib`; beside
/// them `others`, by name.
///
/// # Errors
///
/// Cargo, the assembler or the linker fails, or busybox cannot be fetched.
pub(super) fn build(modules: &[PathBuf], l2: bool, others: Vec<(String, Vec<u8>)>) -> Result<Vec<u8>> {
    let mut files = small()?;
    files.extend(others);
    for platform in Platform::LINUX {
        for (name, path) in pal::build(platform, false)? {
            files.push((format!("bin/{name}"), read(&path)?));
        }
    }
    if l2 {
        for (name, path) in pal::build(Platform::Linux64, true)? {
            files.push((format!("bin/{name}"), read(&path)?));
        }
    }
    for module in modules {
        let name = module.file_name().and_then(|name| name.to_str()).context("a module's name")?;
        files.push((format!("lib/{name}"), read(module)?));
    }
    pack(files)
}

/// Builds the examples of the SDK's README, and a test in C beside them, by name.
///
/// # Errors
///
/// The compiler's, or the README lacks a part.
pub(super) fn examples() -> Result<Vec<(String, Vec<u8>)>> {
    let programs = [
        ("example_c", sdk_example::c()?),
        ("test_c", sdk_example::c_test()?),
        ("example_rust", sdk_example::rust(Example::Alone)?),
        ("example_crates", sdk_example::rust(Example::WithCrates)?),
    ];
    programs.into_iter().map(|(name, path)| Ok((format!("bin/{name}"), read(&path)?))).collect()
}

/// As [`build`] without PAL programs and modules: init, busybox, the 32-bit program and `others`.
///
/// # Errors
///
/// As [`build`].
pub(super) fn build_small(others: Vec<(String, Vec<u8>)>) -> Result<Vec<u8>> {
    let mut files = small()?;
    files.extend(others);
    pack(files)
}

/// As [`build`] for a kernel of 32 bits: the PAL programs alone, one of which is init.
///
/// # Errors
///
/// Cargo fails.
pub(super) fn build_i386() -> Result<Vec<u8>> {
    let mut files = Vec::new();
    for (name, path) in pal::build(Platform::Linux32, false)? {
        let place = if name == "init32" { "init".to_owned() } else { format!("bin/{name}") };
        files.push((place, read(&path)?));
    }
    pack(files)
}

fn small() -> Result<Vec<(String, Vec<u8>)>> {
    let busybox = package::unpacked("busybox-static")?.join("bin/busybox");
    Ok(vec![
        ("init".to_owned(), init()?),
        ("bin/busybox".to_owned(), read(&busybox)?),
        ("bin/program32".to_owned(), program32()?),
    ])
}

fn pack(files: Vec<(String, Vec<u8>)>) -> Result<Vec<u8>> {
    let mut archive = Vec::new();
    for folder in ["add", "bin", "dev", "lib", "proc", "sys"] {
        let entry = Builder::new(folder).mode(0o755).set_mode_file_type(ModeFileType::Directory);
        entry.write(&mut archive, 0).finish()?;
    }
    let console = Builder::new("dev/console").mode(0o600).set_mode_file_type(ModeFileType::Char);
    console.rdev_major(CONSOLE.0).rdev_minor(CONSOLE.1).write(&mut archive, 0).finish()?;
    for (name, bytes) in files {
        let entry = Builder::new(&name).mode(0o755).set_mode_file_type(ModeFileType::Regular);
        let mut writer = entry.write(&mut archive, u32::try_from(bytes.len())?);
        writer.write_all(&bytes)?;
        writer.finish()?;
    }
    trailer(&mut archive)?;
    Ok(archive)
}

/// Builds init without any shared library, at fixed addresses.
fn init() -> Result<Vec<u8>> {
    let target_folder = paths::out().join("initramfs");
    let flags = "-C target-feature=+crt-static -C relocation-model=static -C strip=symbols";
    let mut command = cargo();
    command
        .args(["build", "--release", "--package", "xmhf-initramfs", "--target", TARGET, "--target-dir"])
        .arg(&target_folder)
        .env("RUSTFLAGS", flags);
    progress::cargo("building the initramfs's init", &mut command)?;
    read(&target_folder.join(TARGET).join("release/init"))
}

/// Assembles the 32-bit program.
fn program32() -> Result<Vec<u8>> {
    let source = paths::root().join("tools/initramfs/src/program32.S");
    let folder = tempfile::tempdir()?;
    let object = folder.path().join("program32.o");
    let program = folder.path().join("program32");
    output(Command::new("as").arg("--32").arg("-o").args([&object, &source]))?;
    output(Command::new("ld").args(["-m", "elf_i386", "-s", "-o"]).args([&program, &object]))?;
    read(&program)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("reading {}", path.display()))
}
