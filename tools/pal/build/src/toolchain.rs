//! Cargo for processes without FPU and library: core built from source, for a target of ours.

use anyhow::{Context, Result, bail, ensure};
use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Linkers in the order of preference where the toolchain has no rust-lld.
const LINKERS: [&str; 5] = ["ld.lld-22", "ld.lld", "ld.lld-21", "ld.lld-20", "ld.lld-19"];
/// What a build of the program around sets for itself and a PAL's must not see.
const FOREIGN: [&str; 8] = [
    "RUSTFLAGS",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_BUILD_RUSTFLAGS",
    "CARGO_BUILD_TARGET",
    "CARGO_TARGET_DIR",
    "RUSTC_WRAPPER",
    "RUSTC_WORKSPACE_WRAPPER",
    "CARGO_MAKEFLAGS",
];

/// Crates of cryptography bring code for vector registers, which a PAL has not; each has a portable form.
const PORTABLE: [&str; 8] = [
    "aes_backend=\"soft\"",
    "chacha20_backend=\"soft\"",
    "curve25519_dalek_backend=\"serial\"",
    "keccak_backend=\"soft\"",
    "poly1305_backend=\"soft\"",
    "polyval_backend=\"soft\"",
    "sha1_backend=\"soft\"",
    "sha2_backend=\"soft\"",
];

/// A word size to build for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    name: &'static str,
}

impl Target {
    /// The target for programs of an architecture in Cargo's words.
    pub(crate) fn of_architecture(architecture: &str) -> Result<Self> {
        match architecture {
            "x86_64" => Ok(Self { name: "x86_64-pal-linux" }),
            "x86" => Ok(Self { name: "i686-pal-linux" }),
            _ => bail!("a PAL runs on x86 and x86_64, not on {architecture}"),
        }
    }

    /// Builds the package in `project` and gives the folder of its programs.
    pub(crate) fn build(self, project: &Path) -> Result<PathBuf> {
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        let target = super::sdk().join(format!("{}.json", self.name));
        command
            .args(["build", "--quiet", "--release", "-Zjson-target-spec"])
            .args(["-Zbuild-std=core,compiler_builtins", "-Zbuild-std-features=compiler-builtins-mem"])
            .arg("--target")
            .arg(target)
            .arg("--target-dir")
            .arg(project.join("target"))
            .current_dir(project);
        FOREIGN.iter().for_each(|name| {
            command.env_remove(name);
        });
        // The one form in which a flag may hold anything.
        let flags = PORTABLE.map(|backend| format!("--cfg\x1f{backend}")).join("\x1f");
        command.env("CARGO_ENCODED_RUSTFLAGS", flags);
        // The options above are unstable; this lets a stable compiler take them.
        command.env("RUSTC_BOOTSTRAP", "1");
        if let Some(linker) = linker()? {
            let name = self.name.to_uppercase().replace('-', "_");
            command.env(format!("CARGO_TARGET_{name}_LINKER"), linker);
        }
        let output = command.output().context("cannot start cargo")?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "the PAL does not build:\n{complaint}");
        Ok(project.join("target").join(self.name).join("release"))
    }
}

/// The linker to use; `None` where the toolchain brings the usual one.
fn linker() -> Result<Option<&'static str>> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let sysroot = Command::new(rustc).args(["--print", "sysroot"]).output().context("cannot start rustc")?;
    let sysroot = PathBuf::from(String::from_utf8_lossy(&sysroot.stdout).trim());
    ensure!(
        sysroot.join("lib/rustlib/src/rust/library/core/Cargo.toml").exists(),
        "the toolchain has no source of the standard library: rustup component add rust-src"
    );
    if sysroot.join("lib/rustlib/x86_64-unknown-linux-gnu/bin/rust-lld").exists() {
        return Ok(None);
    }
    let exists =
        |linker: &&str| Command::new(linker).arg("--version").output().is_ok_and(|o| o.status.success());
    let found = LINKERS.into_iter().find(exists);
    ensure!(found.is_some(), "no LLVM linker found, tried {LINKERS:?}");
    Ok(found)
}
