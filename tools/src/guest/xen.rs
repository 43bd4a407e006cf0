//! Debian's Xen, with Debian's kernel and our initramfs as its first domain.

use super::linux::LinuxOptions;
use super::{initramfs, package};
use crate::disk::Disk;
use anyhow::{Context, Result};
use flate2::read::GzDecoder;
use std::fs;
use std::io::Read;
use std::path::Path;

const XEN_META_PACKAGE: &str = "xen-system-amd64";
const XEN_PREFIX: &str = "xen-hypervisor-4";
/// The cloud kernel cannot be a first domain.
const KERNEL_META_PACKAGE: &str = "linux-image-amd64";
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
            ("/boot/vmlinuz", &kernel),
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
         multiboot /boot/xen com1=115200,8n1,0x3f8,4 console=com1 loglvl=all guest_loglvl=all sync_console noreboot {dom0} dom0_mem=256M,max:256M {xen}\n\
         module /boot/vmlinuz console=hvc0 loglevel=7 {kernel} {arguments} xmhf.do=xen\n\
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

fn kernel() -> Result<Vec<u8>> {
    let name = package::dependency(KERNEL_META_PACKAGE, KERNEL_PREFIX)?;
    let version = name.trim_start_matches(KERNEL_PREFIX);
    let path = package::unpacked(&name)?.join("boot").join(format!("vmlinuz-{version}"));
    fs::read(&path).with_context(|| format!("reading {}", path.display()))
}
