//! memtest86+ with its screen on the serial console.

use super::package;
use crate::disk::Disk;
use anyhow::{Context, Result};
use std::path::Path;

/// Writes the guest's disk.
///
/// # Errors
///
/// The package cannot be fetched, or the disk cannot be made.
pub(super) fn write_disk(path: &Path) -> Result<()> {
    let program = package::unpacked("memtest86+")?.join("boot/memtest86+x64.bin");
    let program = std::fs::read(&program).with_context(|| format!("reading {}", program.display()))?;
    let script = "serial --port=0x3f8 --speed=115200\n\
                  terminal_output console serial\n\
                  echo GRUB loads the memory test\n\
                  terminal_output console\n\
                  linux16 /boot/memtest console=ttyS0,115200 keyboard=legacy nobench nosm nopause\n\
                  boot\n";
    Disk {
        script,
        modules: &["serial", "terminal", "echo", "linux16", "boot"],
        files: &[("/boot/memtest", &program)],
    }
    .write(path)
}
