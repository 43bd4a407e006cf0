//! Where things lie: sources where `XMHF_ROOT` says, everything made under `target/xmhf`.

use std::env::var_os;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// Asked when the runner starts: a root that is built in would be that of the tree it was built in, which may have been
/// copied or moved since. `tools/xmhf` sets the variable, and `.cargo/config.toml` for all that Cargo starts.
static ROOT: LazyLock<PathBuf> = LazyLock::new(|| {
    let here = || std::env::current_dir().unwrap_or_default();
    // Cargo's form of it may end in `/.` or `/`.
    var_os("XMHF_ROOT").map_or_else(here, |root| PathBuf::from(root).components().collect())
});

/// Root of the source tree.
#[must_use]
pub fn root() -> &'static Path {
    &ROOT
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
    var_os("XMHF_BOCHS").map_or_else(|| out().join("bochs/run"), PathBuf::from)
}
