//! Debian's Xen, with Debian's kernel and a small userspace of ours as its first domain.

use super::linux::LinuxOptions;
use super::{initramfs, package};
use crate::disk::Disk;
use anyhow::{Context, Result};
use flate2::read::GzDecoder;
use lzma_rust2::XzReader;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

const XEN_META_PACKAGE: &str = "xen-system-amd64";
const XEN_PREFIX: &str = "xen-hypervisor-";
/// The cloud kernel cannot be a first domain.
const KERNEL_META_PACKAGE: &str = "linux-image-amd64";
const KERNEL_PREFIX: &str = "linux-image-";

/// A panic halts. Idle processors use HLT, see the Linux guest. Under Bochs a domain that has virtual-interrupt
/// delivery waits for ever for its timer, without the hypervisor too.
const XEN_ARGUMENTS: &str = "com1=115200,8n1,0x3f8,4 console=com1 loglvl=all noreboot cpuidle=0 mwait-idle=0 apicv=0 \
                             dom0_mem=256M,max:256M bootscrub=0";
/// There is no IOMMU, which a first domain with VMX asks for; it needs no device that writes to memory. With a second
/// processor such a domain dies under Bochs, without the hypervisor too, so Xen leaves the others alone.
const PVH_ARGUMENTS: &str = "dom0=pvh dom0-iommu=none maxcpus=1";
const PV_ARGUMENTS: &str = "dom0=pv";
const KERNEL_ARGUMENTS: &str =
    "console=hvc0 loglevel=6 nokaslr mitigations=off nowatchdog random.trust_cpu=on";
/// What init does, and before what else it may be asked for: the PAL programs.
const ACTIONS: &str = "xen,forkexec,program32";
const PAL: &str = "pal_programs";

/// Offsets in a bzImage.
const SETUP_SECTORS: usize = 0x1f1;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;
const SECTOR: usize = 512;

/// Writes the guest's disk; with `pvh` the first domain is a guest of VMX.
///
/// # Errors
///
/// A package cannot be fetched, the kernel is packed in an unknown way, or the disk cannot be made.
pub(super) fn write_disk(path: &Path, pvh: bool, options: &LinuxOptions) -> Result<()> {
    let initramfs = if has_pals(options) {
        initramfs::build(&[], true, Vec::new())?
    } else {
        initramfs::build_small(Vec::new())?
    };
    Disk {
        script: &script(pvh, options),
        modules: &["serial", "terminal", "echo", "multiboot", "boot"],
        files: &[("/boot/xen", &xen()?), ("/boot/vmlinux", &kernel()?), ("/boot/initramfs", &initramfs)],
    }
    .write(path)
}

fn script(pvh: bool, options: &LinuxOptions) -> String {
    let mode = if pvh { PVH_ARGUMENTS } else { PV_ARGUMENTS };
    let arguments = &options.arguments;
    let pals = match (has_pals(options), pvh) {
        (false, _) => String::new(),
        (true, false) => format!(",{PAL}"),
        // Programs for a guest of a guest.
        (true, true) => format!(",{PAL}_l2"),
    };
    format!(
        "serial --port=0x3f8 --speed=115200\n\
         terminal_output console serial\n\
         echo GRUB loads Xen\n\
         terminal_output console\n\
         multiboot /boot/xen {XEN_ARGUMENTS} {mode}\n\
         module /boot/vmlinux {KERNEL_ARGUMENTS} {arguments} xmhf.do={ACTIONS}{pals}\n\
         module /boot/initramfs\n\
         boot\n"
    )
}

fn has_pals(options: &LinuxOptions) -> bool {
    options.actions.iter().any(|action| action.starts_with(PAL))
}

/// Xen's image, expanded: GRUB would take hundreds of instructions a byte.
fn xen() -> Result<Vec<u8>> {
    let (folder, version) = package(XEN_META_PACKAGE, XEN_PREFIX)?;
    let packed = read(&folder.join("boot").join(format!("xen-{version}.gz")))?;
    let mut image = Vec::new();
    GzDecoder::new(packed.as_slice()).read_to_end(&mut image).context("expanding Xen")?;
    Ok(image)
}

/// The kernel that lies in the bzImage, expanded: Xen would take some seventy instructions a byte.
fn kernel() -> Result<Vec<u8>> {
    let (folder, version) = package(KERNEL_META_PACKAGE, KERNEL_PREFIX)?;
    let image = read(&folder.join("boot").join(format!("vmlinuz-{version}")))?;
    let packed = payload(&image).context("the kernel is no bzImage")?;
    let mut kernel = Vec::new();
    XzReader::new(packed, false).read_to_end(&mut kernel).context("expanding the kernel")?;
    Ok(kernel)
}

/// The compressed kernel in a bzImage (Linux, "The Linux/x86 Boot Protocol", "Details of Header Fields").
fn payload(image: &[u8]) -> Option<&[u8]> {
    let field = |at: usize| Some(u32::from_le_bytes(image.get(at..at + 4)?.try_into().ok()?) as usize);
    let setup = (usize::from(*image.get(SETUP_SECTORS)?) + 1) * SECTOR;
    let packed = image.get(setup..)?.get(field(PAYLOAD_OFFSET)?..)?.get(..field(PAYLOAD_LENGTH)?)?;
    // The last four bytes are the expanded size.
    packed.split_last_chunk::<4>().map(|(packed, _)| packed)
}

/// Folder and version of what a meta package stands for.
fn package(meta_package: &str, prefix: &str) -> Result<(PathBuf, String)> {
    let name = package::dependency(meta_package, prefix)?;
    let version = name.trim_start_matches(prefix).to_owned();
    Ok((package::unpacked(&name)?, version))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("reading {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn script_says_what_the_first_domain_is() {
        let options = LinuxOptions { arguments: "a=b".into(), ..LinuxOptions::default() };
        assert!(script(false, &options).contains(" dom0=pv\nmodule /boot/vmlinux console=hvc0 "));
        assert!(script(true, &options).contains(" dom0=pvh dom0-iommu=none maxcpus=1\n"));
        assert!(script(true, &options).contains(" a=b xmhf.do=xen,forkexec,program32\n"));
        let actions = ["pal_demo", "pal_programs"].map(String::from).to_vec();
        let script = script(true, &LinuxOptions { actions, ..options });
        assert!(script.contains(",program32,pal_programs_l2\n"));
    }

    #[test]
    fn a_kernel_is_found_behind_its_setup() {
        let mut image = vec![0; 3 * SECTOR];
        image[SETUP_SECTORS] = 1;
        image[PAYLOAD_OFFSET] = 2;
        image[PAYLOAD_LENGTH] = 7;
        image[2 * SECTOR + 2..][..7].copy_from_slice(b"abc\x04\x03\x02\x01");
        assert_eq!(payload(&image), Some(&b"abc"[..]));
        image[PAYLOAD_LENGTH] = 3;
        assert_eq!(payload(&image), None);
        assert_eq!(payload(&image[..PAYLOAD_LENGTH]), None);
    }
}
