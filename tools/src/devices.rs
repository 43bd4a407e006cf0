//! The devices of `tools/devices`, as the plugin that the emulator loads.

use crate::progress;
use crate::toolchain::{cargo, release};
use anyhow::Result;
use std::path::PathBuf;

/// Builds the plugin, into [`folder`].
///
/// # Errors
///
/// The compiler's or linker's, already shown.
pub(crate) fn build() -> Result<()> {
    let mut build = cargo();
    build.args(["build", "--release", "--package=xmhf-devices"]);
    progress::cargo("building the emulator's devices", &mut build).map(drop)
}

/// Where the plugin is.
pub(crate) fn folder() -> PathBuf {
    release("")
}
