//! Debian's Xen, with Debian's kernel and our initramfs as its first domain.

use super::linux::LinuxOptions;
use super::{initramfs, package};
use crate::disk::Disk;
use anyhow::{Context, Result};
use flate2::read::GzDecoder;
use lzma_rust2::XzReader;
use std::fs;
use std::io::Read;
use std::path::Path;

const XEN_META_PACKAGE: &str = "xen-system-amd64";
const XEN_PREFIX: &str = "xen-hypervisor-4";
/// The cloud kernel cannot be a first domain.
const KERNEL_META_PACKAGE: &str = "linux-image-amd64";
/// Offsets in a bzImage.
const SETUP_SECTORS: usize = 0x1f1;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;
const KERNEL_PREFIX: &str = "linux-image-";

/// Writes the guest's disk; with `pvh` the first domain is a guest of VMX.
///
/// # Errors
///
/// A package cannot be fetched, or the disk cannot be made.
pub(super) fn write_disk(path: &Path, pvh: bool, options: &LinuxOptions) -> Result<()> {
    let kernel = kernel()?;
    Disk {
        script: &script(pvh, options),
        modules: &["serial", "terminal", "echo", "multiboot", "boot"],
        files: &[
            ("/boot/xen", &xen()?),
            ("/boot/vmlinux", &kernel),
            ("/boot/initramfs", &initramfs::build_small()?),
        ],
    }
    .write(path)
}

fn script(pvh: bool, options: &LinuxOptions) -> String {
    let dom0 = if pvh { "dom0=pvh dom0-iommu=none" } else { "dom0=pv" };
    let xen = std::env::var("XEN_ARGS").unwrap_or_default();
    let kernel = std::env::var("DOM0_ARGS").unwrap_or_default();
    let arguments = &options.arguments;
    format!(
        "serial --port=0x3f8 --speed=115200\n\
         terminal_output console serial\n\
         echo GRUB loads Xen\n\
         terminal_output console\n\
         multiboot /boot/xen com1=115200,8n1,0x3f8,4 console=com1 loglvl=all noreboot apicv=0 cpuidle=0 mwait-idle=0 console_timestamps=raw {dom0} dom0_mem=256M,max:256M {xen}\n\
         module /boot/vmlinux console=hvc0 loglevel=6 {kernel} {arguments} xmhf.do=xen\n\
         module /boot/initramfs\n\
         boot\n"
    )
}

fn xen() -> Result<Vec<u8>> {
    let name = package::dependency(XEN_META_PACKAGE, XEN_PREFIX)?;
    let version = name.trim_start_matches("xen-hypervisor-");
    let path = package::unpacked(&name)?.join("boot").join(format!("xen-{version}.gz"));
    let packed = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    let mut image = Vec::new();
    GzDecoder::new(packed.as_slice()).read_to_end(&mut image)?;
    Ok(image)
}

/// The kernel as it lies inside its bzImage, without the compression: Xen would take 65 instructions a byte to expand it.
fn kernel() -> Result<Vec<u8>> {
    let name = package::dependency(KERNEL_META_PACKAGE, KERNEL_PREFIX)?;
    let version = name.trim_start_matches(KERNEL_PREFIX);
    let path = package::unpacked(&name)?.join("boot").join(format!("vmlinuz-{version}"));
    let image = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    let packed = payload(&image).with_context(|| format!("{} is no bzImage", path.display()))?;
    let mut kernel = Vec::new();
    XzReader::new(packed, false).read_to_end(&mut kernel).context("expanding the kernel")?;
    Ok(kernel)
}

/// The compressed kernel in a bzImage (Linux, "The Linux/x86 Boot Protocol", "Details of Header Fields").
fn payload(image: &[u8]) -> Option<&[u8]> {
    let field = |at: usize| Some(u32::from_le_bytes(image.get(at..at + 4)?.try_into().ok()?) as usize);
    let sectors = usize::from(*image.get(SETUP_SECTORS)?);
    let start = (sectors + 1) * 512 + field(PAYLOAD_OFFSET)?;
    // The last four bytes are the expanded size.
    image.get(start..)?.get(..field(PAYLOAD_LENGTH)?.checked_sub(4)?)
}
