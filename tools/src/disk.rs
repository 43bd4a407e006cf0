//! Raw disk images that a BIOS boots, made without loop devices and without root.
//!
//! ```text
//! sector 0        MBR: GRUB's boot sector and the partition table
//! sector 1        GRUB's core image, with the boot script inside
//! sector 2048     one FAT partition with GRUB's modules and the files
//! ```

use crate::grub;
use anyhow::{Context, Result, ensure};
use fatfs::{FatType, FileSystem, FormatVolumeOptions, FsOptions};
use std::fs::File;
use std::io::{Cursor, Seek, SeekFrom, Write};
use std::path::Path;

const SECTOR: usize = 512;
/// First sector of the partition, the customary one.
const PARTITION_START: u32 = 2048;
/// Sectors of a cylinder as BIOSes count it; a disk is a whole number of them, or its end cannot be reached.
const CYLINDER: usize = 16 * 63;
/// FAT12, as small volumes are.
const PARTITION_TYPE: u8 = 0x01;
/// Bytes of a cluster, GRUB's unit of reading too: a small one costs it time.
const CLUSTER: usize = 32 * 1024;
/// Room beyond the files, in bytes.
const SPARE: usize = 4 << 20;

/// What a disk holds.
#[derive(Clone, Debug)]
pub struct Disk<'a> {
    /// GRUB's commands, one a line; they run in order and the last one boots.
    pub script: &'a str,
    /// GRUB modules that the commands come from.
    pub modules: &'a [&'a str],
    /// Path from the partition's root, and contents, of each file.
    pub files: &'a [(&'a str, &'a [u8])],
}

impl Disk<'_> {
    /// Writes the image to `path`, replacing what is there.
    ///
    /// # Errors
    ///
    /// GRUB is not there or fails, the files are too large, or the image cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let core = grub::core(self.modules, self.script)?;
        ensure!(
            core.len() <= (PARTITION_START as usize - 1) * SECTOR,
            "GRUB's core image of {} bytes does not fit its gap",
            core.len()
        );
        let modules = grub::module_files(self.modules)?;
        let modules = modules.iter().map(|(path, bytes)| (path.as_str(), bytes.as_slice()));
        let files: Vec<_> = modules.chain(self.files.iter().copied()).collect();
        let volume = volume(&files).context("making a FAT volume")?;

        let mut image = File::create(path).with_context(|| format!("creating {}", path.display()))?;
        let sectors = PARTITION_START as usize + volume.len() / SECTOR;
        image.set_len((sectors.next_multiple_of(CYLINDER) * SECTOR) as u64)?;
        write_mbr(&mut image, &grub::boot_sector()?, volume.len() / SECTOR)?;
        image.seek(SeekFrom::Start(SECTOR as u64))?;
        image.write_all(&core)?;
        image.seek(SeekFrom::Start(u64::from(PARTITION_START) * SECTOR as u64))?;
        image.write_all(&volume)?;
        Ok(())
    }
}

/// Writes the master boot record: boot code, and a table whose first entry is the active partition. Its addresses in
/// cylinders, heads and sectors are left at zero, as nothing has read them since disks outgrew them.
fn write_mbr(image: &mut File, boot: &[u8], sectors: usize) -> Result<()> {
    /// Behind them stand the disk's signature, which Windows wants to find, and the table.
    const CODE: usize = 440;
    let code = boot.get(..CODE).with_context(|| format!("GRUB's boot sector has {} bytes", boot.len()))?;
    let mut sector = [0; SECTOR];
    sector[..CODE].copy_from_slice(code);
    sector[CODE..444].copy_from_slice(b"XMHF");
    sector[446] = 0x80;
    sector[450] = PARTITION_TYPE;
    sector[454..458].copy_from_slice(&PARTITION_START.to_le_bytes());
    sector[458..462].copy_from_slice(&u32::try_from(sectors)?.to_le_bytes());
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    image.seek(SeekFrom::Start(0))?;
    Ok(image.write_all(&sector)?)
}

fn volume(files: &[(&str, &[u8])]) -> Result<Vec<u8>> {
    let contents: usize = files.iter().map(|(_, bytes)| bytes.len().next_multiple_of(CLUSTER)).sum();
    let mut volume = Cursor::new(vec![0; contents + SPARE]);
    let options =
        FormatVolumeOptions::new().fat_type(FatType::Fat12).bytes_per_cluster(u32::try_from(CLUSTER)?);
    fatfs::format_volume(&mut volume, options.volume_label(*b"XMHF       "))?;
    let file_system = FileSystem::new(&mut volume, FsOptions::new())?;
    for (path, bytes) in files {
        let mut folder = file_system.root_dir();
        let mut names = path.split('/').filter(|name| !name.is_empty()).peekable();
        while let Some(name) = names.next() {
            if names.peek().is_some() {
                folder = folder.create_dir(name)?;
            } else {
                folder.create_file(name)?.write_all(bytes)?;
            }
        }
    }
    file_system.unmount()?;
    Ok(volume.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn volume_gives_back_its_files() {
        let big = vec![7; 3 << 20];
        let bytes = volume(&[("/boot/xmhf-bootloader", b"one"), ("/boot/grub/big", &big)]).unwrap();

        let file_system = FileSystem::new(Cursor::new(bytes), FsOptions::new()).unwrap();
        assert_eq!(file_system.fat_type(), FatType::Fat12);
        let mut found = Vec::new();
        file_system.root_dir().open_file("boot/xmhf-bootloader").unwrap().read_to_end(&mut found).unwrap();
        assert_eq!(found, b"one");
        found.clear();
        file_system.root_dir().open_file("boot/grub/big").unwrap().read_to_end(&mut found).unwrap();
        assert!(found == big);
    }

    #[test]
    fn mbr_holds_boot_code_and_one_active_partition() {
        let mut image = tempfile::tempfile().unwrap();
        image.set_len(8 << 20).unwrap();
        write_mbr(&mut image, &[0x5a; SECTOR], 9 * CYLINDER).unwrap();

        let mut sector = [0; SECTOR];
        image.seek(SeekFrom::Start(0)).unwrap();
        image.read_exact(&mut sector).unwrap();
        assert!(sector[..440].iter().all(|&byte| byte == 0x5a));
        assert_eq!(sector[446], 0x80);
        assert_eq!(sector[450], PARTITION_TYPE);
        assert_eq!(sector[454..458], 2048u32.to_le_bytes());
        assert_eq!(sector[458..462], (9 * 1008u32).to_le_bytes());
        assert_eq!(sector[510..], [0x55, 0xaa]);
    }
}
