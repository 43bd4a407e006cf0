//! The guest systems that can be booted, each from a disk of its own.

mod initramfs;
mod linux;
mod mbr;
mod memtest;
pub(crate) mod package;
mod xen;

pub use linux::LinuxOptions;

use crate::paths;
use anyhow::{Result, bail, ensure};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Which guest to boot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Guest {
    /// Debian's cloud kernel with a small userspace of ours.
    #[default]
    Linux,
    /// Debian's kernel of 32 bits, and the PAL programs of that size.
    Linux32 {
        /// Whether it uses physical-address extension.
        pae: bool,
    },
    /// Debian's cloud kernel with KVM, which runs guests of its own.
    Kvm,
    /// Debian's Xen, with Debian's kernel as its first domain.
    Xen {
        /// Whether that domain is a guest of VMX.
        pvh: bool,
    },
    /// This hypervisor once more, and Linux in it.
    Xmhf,
    /// memtest86+, up to its screen.
    Memtest,
    /// 512 bytes of 16-bit code that ask the BIOS for the memory map.
    Mbr,
    /// One of the bare test guests, by its name.
    Bare(String),
    /// Any raw disk image.
    Image(PathBuf),
}

/// What a guest's console has to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expectation {
    /// Words of the line that a good run prints; without them, switching off the machine is enough.
    pub marker: Option<&'static str>,
    /// Words of a line that tells of failure.
    pub failure: Option<&'static str>,
    /// Whether the guest goes on for ever behind its marker, so that the runner has to end it.
    pub endless: bool,
}

impl Guest {
    /// Makes the guest's disk, in `folder` where it is not there already, and gives its path.
    ///
    /// Only guests with Linux take `options`; with KVM and Xen, what init does is settled.
    ///
    /// # Errors
    ///
    /// A package cannot be fetched, a tool fails, or the image that was asked for does not exist.
    pub fn disk(&self, folder: &Path, options: &LinuxOptions) -> Result<PathBuf> {
        let disk = folder.join("guest.img");
        match self {
            Self::Linux | Self::Xmhf => linux::write_disk(&disk, options)?,
            Self::Linux32 { pae } => linux::write_disk_i386(&disk, *pae, options)?,
            Self::Kvm => {
                let arguments = options.arguments.clone();
                linux::write_disk(&disk, &LinuxOptions { arguments, ..LinuxOptions::kvm() })?;
            }
            Self::Xen { pvh } => xen::write_disk(&disk, *pvh, options)?,
            Self::Memtest => memtest::write_disk(&disk)?,
            Self::Mbr => mbr::write_disk(&disk)?,
            Self::Bare(name) => return existing(&paths::bare_guest(name)),
            Self::Image(path) => return existing(path),
        }
        Ok(disk)
    }

    /// Whether it is a system with our first process, which tells of itself.
    #[must_use]
    pub fn has_userspace(&self) -> bool {
        !matches!(self, Self::Memtest | Self::Mbr | Self::Bare(_) | Self::Image(_))
    }

    /// What its console has to show.
    #[must_use]
    pub fn expectation(&self) -> Expectation {
        let (marker, failure) = match self {
            Self::Linux | Self::Linux32 { .. } | Self::Xmhf | Self::Xen { .. } => {
                (Some("xmhf-guest: done"), None)
            }
            Self::Kvm => (Some("xmhf-guest: kvm ok"), None),
            Self::Memtest => (Some("Memtest86+"), None),
            Self::Mbr => (Some("xmhf-guest: mbr ok"), None),
            Self::Bare(_) => (Some("PASS "), Some("FAIL ")),
            Self::Image(_) => (None, None),
        };
        Expectation { marker, failure, endless: *self == Self::Memtest }
    }
}

impl FromStr for Guest {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "linux" => return Ok(Self::Linux),
            "linux-686" => return Ok(Self::Linux32 { pae: false }),
            "linux-686-pae" => return Ok(Self::Linux32 { pae: true }),
            "kvm" => return Ok(Self::Kvm),
            "xen" => return Ok(Self::Xen { pvh: false }),
            "xen-pvh" => return Ok(Self::Xen { pvh: true }),
            "xmhf" => return Ok(Self::Xmhf),
            "memtest" => return Ok(Self::Memtest),
            "mbr" => return Ok(Self::Mbr),
            _ => {}
        }
        if let Some(bare) = name.strip_prefix("bare:") {
            ensure!(!bare.is_empty() && !bare.contains('/'), "bare: is followed by a guest's name");
            return Ok(Self::Bare(bare.to_owned()));
        }
        if name.contains(['/', '.']) {
            return Ok(Self::Image(name.into()));
        }
        bail!(
            "no guest is called {name}: linux, linux-686, linux-686-pae, kvm, xen, xen-pvh, xmhf, memtest, mbr, bare:NAME \
             or the path of a raw disk image"
        )
    }
}

fn existing(path: &Path) -> Result<PathBuf> {
    ensure!(path.is_file(), "there is no disk image at {}", path.display());
    Ok(path.canonicalize()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guests_go_by_name_or_path() {
        let guest = |name: &str| name.parse::<Guest>().ok();
        assert_eq!((guest("linux"), guest("kvm")), (Some(Guest::Linux), Some(Guest::Kvm)));
        assert_eq!(guest("xmhf"), Some(Guest::Xmhf));
        assert_eq!(guest("xen"), Some(Guest::Xen { pvh: false }));
        assert_eq!(guest("xen-pvh"), Some(Guest::Xen { pvh: true }));
        assert_eq!(guest("linux-686-pae"), Some(Guest::Linux32 { pae: true }));
        assert_eq!(guest("bare:cpuid"), Some(Guest::Bare("cpuid".into())));
        assert_eq!(guest("disk.img"), Some(Guest::Image("disk.img".into())));
        assert_eq!(guest("/dev/sdb"), Some(Guest::Image("/dev/sdb".into())));
        assert_eq!((guest("windows"), guest("bare:"), guest("bare:../x")), (None, None, None));
    }

    #[test]
    fn a_missing_image_is_named() {
        let why = Guest::Image("/nowhere/disk.img".into())
            .disk(Path::new("/tmp"), &LinuxOptions::default())
            .unwrap_err();
        assert!(why.to_string().contains("/nowhere/disk.img"));
    }
}
