//! A boot sector in 16-bit code, assembled by binutils.

use crate::process::output;
use anyhow::{Result, ensure};
use std::fs;
use std::path::Path;
use std::process::Command;

const SOURCE: &str = include_str!("mbr.S");
/// Disks are whole cylinders of 16 heads and 63 sectors.
const DISK_SIZE: u64 = 16 * 63 * 512;

/// Writes the guest's disk.
///
/// # Errors
///
/// The assembler or linker fails, or the disk cannot be written.
pub(super) fn write_disk(path: &Path) -> Result<()> {
    let source = path.with_extension("S");
    let object = path.with_extension("o");
    fs::write(&source, SOURCE)?;
    output(Command::new("as").arg("--32").arg("-o").args([&object, &source]))?;
    let link = ["-m", "elf_i386", "-Ttext=0x7c00", "-estart", "--oformat=binary"];
    output(Command::new("ld").args(link).arg("-o").arg(path).arg(&object))?;
    let disk = fs::OpenOptions::new().write(true).open(path)?;
    ensure!(disk.metadata()?.len() == 512, "the boot sector has {} bytes", disk.metadata()?.len());
    disk.set_len(DISK_SIZE)?;
    fs::remove_file(source)?;
    fs::remove_file(object)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_sector_has_its_signature() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mbr.img");
        write_disk(&path).unwrap();
        let disk = fs::read(path).unwrap();
        assert_eq!(disk.len() as u64, DISK_SIZE);
        assert_eq!(disk[510..512], [0x55, 0xaa]);
    }
}
