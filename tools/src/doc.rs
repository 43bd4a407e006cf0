//! The documentation of what is linked into the images, made for the bare target, for much of it is
//! not there on the host.

use crate::progress;
use crate::toolchain::{bare_cargo, bare_release};
use anyhow::{Context, Result, ensure};
use std::path::PathBuf;

/// Every crate that a hypapp's author may want to read of.
const PACKAGES: [&str; 7] =
    ["xmhf-runtime", "xmhf-hw", "xmhf-x86", "xmhf-platform", "xmhf-pals", "xmhf-microtpm", "xmhf-trustvisor"];
/// What a hypapp is written against.
const CONTRACT: [&str; 3] =
    ["runtime/hypapp/trait.Hypapp.html", "runtime/vcpu/trait.Vcpu.html", "runtime/services/index.html"];

/// Makes the documentation and gives its first page.
///
/// # Errors
///
/// A warning of rustdoc's, already shown; or a part of the hypapps' contract is not in it.
pub(crate) fn make() -> Result<PathBuf> {
    let packages = PACKAGES.iter().map(|package| format!("--package={package}"));
    let mut cargo = bare_cargo("doc")?;
    cargo.args(["--no-deps", "--keep-going"]).args(packages).env("RUSTDOCFLAGS", "-D warnings");
    progress::cargo("making the documentation of the images", &mut cargo)?;
    let folder = bare_release().parent().context("a folder of builds")?.join("doc");
    for page in CONTRACT {
        ensure!(folder.join(page).is_file(), "the documentation has no {page}");
    }
    Ok(folder.join("runtime/index.html"))
}
