//! Where things lie: sources beside the runner's own, everything made under `target/xmhf`.

use std::path::{Path, PathBuf};

/// Root of the source tree.
#[must_use]
pub fn root() -> &'static Path {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR"));
    tools.parent().unwrap_or(tools)
}

/// Folder of everything that the runner makes.
#[must_use]
pub fn out() -> PathBuf {
    root().join("target/xmhf")
}

/// Folder of the files that GRUB loads.
#[must_use]
pub fn boot() -> PathBuf {
    out().join("boot")
}

/// Folder of the images with their symbols, for backtraces.
#[must_use]
pub fn elf() -> PathBuf {
    out().join("elf")
}

/// Folder of guest systems.
#[must_use]
pub fn guests() -> PathBuf {
    out().join("guest")
}

/// Folder of the PAL programs.
#[must_use]
pub fn pal() -> PathBuf {
    out().join("pal")
}

/// Disk image of the bare test guest called `name`.
#[must_use]
pub fn bare_guest(name: &str) -> PathBuf {
    guests().join("bare").join(format!("{name}.img"))
}

/// The privately unpacked Bochs; `XMHF_BOCHS` names another one.
#[must_use]
pub fn bochs() -> PathBuf {
    std::env::var_os("XMHF_BOCHS").map_or_else(|| out().join("bochs/run"), PathBuf::from)
}
