//! What each module that the boot loader brought is for.
//!
//! Intel's SINIT modules are recognised by their header wherever they stand. Of the others the first is
//! the hypervisor image, the second the guest's boot sector, the third, where there is one, data for the
//! hypapp.

use core::fmt;

use crate::handoff::{
    BOOT_SECTOR_CAPACITY, IMAGE_MAGIC, ImageHeader, LOADER_MAGIC, LOADER_SIZE, LoaderHeader, PhysRange,
    RUNTIME_OFFSET,
};
use crate::physical::{ReadPhysical, Unreadable};

/// Bytes of the smallest boot sector.
const SECTOR_SIZE: u64 = 512;

/// The modules by role, where the boot loader put them.
#[derive(Clone, Copy, Debug)]
pub struct Modules {
    /// Secure loader and runtime.
    pub image: HypervisorImage,
    /// The guest's boot sector.
    pub boot_sector: PhysRange,
    /// The last SINIT module.
    pub sinit: Option<PhysRange>,
    /// Data for the hypapp.
    pub hypapp: Option<PhysRange>,
}

/// A hypervisor image whose headers make sense.
#[derive(Clone, Copy, Debug)]
pub struct HypervisorImage {
    /// The file in memory.
    pub file: PhysRange,
    /// Offset of the secure loader's entry point, in bytes.
    pub entry: u32,
    /// Bytes of the runtime, behind the secure loader's [`LOADER_SIZE`] bytes.
    pub runtime_size: u64,
    /// The runtime's own header.
    pub header: ImageHeader,
}

/// Why the modules were refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModuleError {
    /// There is no module but SINIT modules.
    NoImage,
    /// The hypervisor image is shorter than its headers say.
    Truncated,
    /// The first module is no hypervisor image, or one with an impossible header.
    Foreign,
    /// There is no second module.
    NoBootSector,
    /// The second module has more bytes than a boot sector may.
    BootSectorTooLarge(u64),
    /// The second module is shorter than a sector or does not end with a boot sector's signature.
    NotBootable,
    /// A module lies outside the memory that can be read.
    Unreadable,
}

impl Modules {
    /// Finds the role of each of `list`, in the boot loader's order.
    ///
    /// # Errors
    ///
    /// What is missing or cannot be what its place says.
    pub fn assign(memory: &impl ReadPhysical, list: &[PhysRange]) -> Result<Self, ModuleError> {
        let mut sinit = None;
        let mut others = [None; 3];
        let mut places = others.iter_mut();
        for &module in list {
            if is_sinit(memory, module)? {
                sinit = Some(module);
            } else if let Some(place) = places.next() {
                *place = Some(module);
            }
        }
        let [image, boot_sector, hypapp] = others;
        let image = HypervisorImage::read(memory, image.ok_or(ModuleError::NoImage)?)?;
        let boot_sector = boot_sector.ok_or(ModuleError::NoBootSector)?;
        check_boot_sector(memory, boot_sector)?;
        Ok(Self { image, boot_sector, sinit, hypapp })
    }
}

impl HypervisorImage {
    /// Reads and checks the headers of the image in `file`.
    fn read(memory: &impl ReadPhysical, file: PhysRange) -> Result<Self, ModuleError> {
        let runtime = file.base + LOADER_SIZE;
        if file.length < LOADER_SIZE + size_of::<ImageHeader>() as u64 {
            let ours = file.length >= size_of::<LoaderHeader>() as u64
                && memory.read_u64(file.base)? == LOADER_MAGIC;
            return Err(if ours { ModuleError::Truncated } else { ModuleError::Foreign });
        }
        let word = |index: u64| memory.read_u64(runtime + 8 * index);
        let header = ImageHeader {
            magic: word(0)?,
            entry: word(1)?,
            text_end: word(2)?,
            rodata_end: word(3)?,
            data_end: word(4)?,
            bss_end: word(5)?,
            pool_bytes: word(6)?,
            pool_bytes_per_cpu: word(7)?,
        };
        let entry = memory.read_u32(file.base + 8)?;
        let runtime_size = memory.read_u64(file.base + 16)?;
        if memory.read_u64(file.base)? != LOADER_MAGIC || header.magic != IMAGE_MAGIC {
            return Err(ModuleError::Foreign);
        }
        let ends = [RUNTIME_OFFSET, header.text_end, header.rodata_end, header.data_end, header.bss_end];
        if !ends.is_sorted()
            || header.data_end - RUNTIME_OFFSET > runtime_size
            || u64::from(entry) >= LOADER_SIZE
            || runtime_size > 1 << 32
        {
            return Err(ModuleError::Foreign);
        }
        if file.length - LOADER_SIZE < runtime_size {
            return Err(ModuleError::Truncated);
        }
        Ok(Self { file, entry, runtime_size, header })
    }
}

fn check_boot_sector(memory: &impl ReadPhysical, module: PhysRange) -> Result<(), ModuleError> {
    if module.length > BOOT_SECTOR_CAPACITY as u64 {
        return Err(ModuleError::BootSectorTooLarge(module.length));
    }
    // A BIOS starts a disk only with this signature at the end of the first 512 bytes.
    if module.length < SECTOR_SIZE || memory.read_u16(module.base + SECTOR_SIZE - 2)? != 0xaa55 {
        return Err(ModuleError::NotBootable);
    }
    Ok(())
}

/// Says whether a module starts with the header of an SINIT module (Intel TXT Software Development Guide,
/// "Authenticated Code Module Format").
fn is_sinit(memory: &impl ReadPhysical, module: PhysRange) -> Result<bool, ModuleError> {
    const HEADER_SIZE: u64 = 128;
    const CHIPSET_MODULE: u16 = 2;
    const SINIT_SUBTYPE: u16 = 0;
    const INTEL: u32 = 0x8086;
    if module.length < HEADER_SIZE {
        return Ok(false);
    }
    let size = 4 * u64::from(memory.read_u32(module.base + 24)?);
    Ok(memory.read_u16(module.base)? == CHIPSET_MODULE
        && memory.read_u16(module.base + 2)? == SINIT_SUBTYPE
        && memory.read_u32(module.base + 16)? == INTEL
        && (HEADER_SIZE..=module.length).contains(&size))
}

impl From<Unreadable> for ModuleError {
    fn from(_: Unreadable) -> Self {
        Self::Unreadable
    }
}

impl fmt::Display for ModuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoImage => {
                f.write_str("GRUB brought no hypervisor image; add: module /boot/xmhf-HYPAPP.bin as the first module")
            }
            Self::Truncated => {
                f.write_str("the hypervisor image is cut short; copy xmhf-HYPAPP.bin to /boot again")
            }
            Self::Foreign => f.write_str(
                "the first module is no hypervisor image of this build; make xmhf-HYPAPP.bin the first module",
            ),
            Self::NoBootSector => f.write_str(
                "GRUB brought no boot sector for the guest; add: module --nounzip (hd1)+1 as the second module",
            ),
            Self::BootSectorTooLarge(bytes) => write!(
                f,
                "the boot sector module has {bytes} bytes, {BOOT_SECTOR_CAPACITY} at most fit; \
                 name one sector: module --nounzip (hd1)+1"
            ),
            Self::NotBootable => f.write_str(
                "the second module is no boot sector (signature 55 AA missing); name the guest's disk: \
                 module --nounzip (hd1)+1",
            ),
            Self::Unreadable => f.write_str("a module lies above 4 GiB; load it below"),
        }
    }
}

#[cfg(test)]
#[path = "modules_tests.rs"]
mod tests;
