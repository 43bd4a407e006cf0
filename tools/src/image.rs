//! The hypervisor's disk: GRUB, the bootloader and the hypervisor image.

use crate::disk::Disk;
use crate::paths;
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Which of GRUB's protocols starts the hypervisor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Multiboot {
    /// `multiboot` and `module`.
    #[default]
    One,
    /// `multiboot2` and `module2`.
    Two,
}

/// How the hypervisor is started.
#[derive(Clone, Debug)]
pub struct ImageOptions {
    /// Name of the hypapp in the image.
    pub hypapp: String,
    /// The bootloader's command line.
    pub arguments: String,
    /// GRUB's protocol.
    pub multiboot: Multiboot,
}

impl Default for ImageOptions {
    fn default() -> Self {
        Self {
            hypapp: "helloworld".into(),
            arguments: "serial=115200,8n1,0x2f8 boot_drive=0x81".into(),
            multiboot: Multiboot::One,
        }
    }
}

/// Writes `xmhf.img` to `folder` and gives its path: a raw disk that boots the hypervisor, which then boots the
/// guest from the BIOS's second disk.
///
/// Bootloader and hypervisor image have to be built already.
///
/// # Errors
///
/// They are not, or the disk cannot be made.
pub fn write(folder: &Path, options: &ImageOptions) -> Result<PathBuf> {
    let name = format!("xmhf-{}.bin", options.hypapp);
    let bootloader = built("xmhf-bootloader")?;
    let hypervisor = built(&name)?;
    let script = script(options);
    let protocol = commands(options.multiboot).0;
    fs::create_dir_all(folder)?;
    let path = folder.join("xmhf.img");
    Disk {
        script: &script,
        modules: &["serial", "terminal", "echo", protocol, "boot"],
        files: &[("/boot/xmhf-bootloader", &bootloader), (&format!("/boot/{name}"), &hypervisor)],
    }
    .write(&path)?;
    Ok(path)
}

fn script(options: &ImageOptions) -> String {
    let ImageOptions { hypapp, arguments, multiboot } = options;
    let (multiboot, module) = commands(*multiboot);
    format!(
        "serial --port=0x2f8 --speed=115200\n\
         terminal_output console serial\n\
         echo GRUB loads the hypervisor\n\
         terminal_output console\n\
         {multiboot} /boot/xmhf-bootloader {arguments}\n\
         {module} /boot/xmhf-{hypapp}.bin\n\
         {module} --nounzip (hd1)+1\n\
         boot\n"
    )
}

/// GRUB's commands for kernel and modules; the first one's module has its name.
fn commands(multiboot: Multiboot) -> (&'static str, &'static str) {
    match multiboot {
        Multiboot::One => ("multiboot", "module"),
        Multiboot::Two => ("multiboot2", "module2"),
    }
}

fn built(name: &str) -> Result<Vec<u8>> {
    let path = paths::boot().join(name);
    fs::read(&path).with_context(|| format!("reading {} (tools/xmhf build makes it)", path.display()))
}

impl FromStr for Multiboot {
    type Err = anyhow::Error;

    fn from_str(version: &str) -> Result<Self> {
        match version {
            "1" => Ok(Self::One),
            "2" => Ok(Self::Two),
            _ => bail!("Multiboot has versions 1 and 2, not {version}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn script_follows_the_grub_convention() {
        let script = script(&ImageOptions::default());
        let commands = "multiboot /boot/xmhf-bootloader serial=115200,8n1,0x2f8 boot_drive=0x81\n\
                        module /boot/xmhf-helloworld.bin\nmodule --nounzip (hd1)+1\nboot\n";
        assert!(script.ends_with(commands), "{script}");
    }

    #[test]
    fn second_protocol_has_commands_of_its_own() {
        let script = script(&ImageOptions { multiboot: Multiboot::Two, ..ImageOptions::default() });
        assert!(script.contains("multiboot2 /boot/") && script.contains("module2 --nounzip (hd1)+1"));
    }
}
