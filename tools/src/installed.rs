//! Programs from the registry of crates that only some commands need: installed below `target` at their first use.

use crate::toolchain::cargo;
use crate::{paths, progress};
use anyhow::Result;
use std::path::PathBuf;

/// Gives the path of `program`, which `package` of `version` has; installs it where it is absent.
///
/// # Errors
///
/// Cargo's, already shown.
pub(crate) fn installed(package: &str, version: &str, program: &str) -> Result<PathBuf> {
    let folder = paths::out().join(format!("{package}-{version}"));
    let path = folder.join("bin").join(program);
    if !path.exists() {
        let (what, wanted) =
            (format!("installing {package} {version}, some minutes"), format!("{package}@{version}"));
        progress::cargo(&what, cargo().args(["install", "--locked", &wanted, "--root"]).arg(&folder))?;
    }
    Ok(path)
}
