//! The hypervisor's disk: GRUB, the bootloader and the hypervisor image.

use crate::disk::Disk;
use crate::paths;
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The hypapp's module on the disk.
const MODULE: &str = "/boot/module";

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
    /// GRUB's number of the disk that the guest boots from; the arguments name it too.
    pub guest_disk: u8,
    /// File that GRUB loads for the hypapp, if any.
    pub module: Option<PathBuf>,
    /// I/O port of the UART that GRUB writes to.
    pub console: u16,
}

impl ImageOptions {
    /// A hypervisor that is the guest of another one, on the disk before its own guest's. It shares its
    /// guest's console.
    #[must_use]
    pub fn inner(guest_disk: u8) -> Self {
        Self {
            arguments: format!("serial=115200,8n1,0x3f8 boot_drive={:#x} nested_xmhf=on", 0x80 + guest_disk),
            guest_disk,
            console: 0x3f8,
            ..Self::default()
        }
    }
}

impl Default for ImageOptions {
    fn default() -> Self {
        Self {
            hypapp: "helloworld".into(),
            arguments: "serial=115200,8n1,0x2f8 boot_drive=0x81".into(),
            multiboot: Multiboot::One,
            guest_disk: 1,
            module: None,
            console: 0x2f8,
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
    let module = options
        .module
        .as_ref()
        .map(|path| fs::read(path).with_context(|| format!("reading {}", path.display())));
    let module = module.transpose()?;
    let name = format!("/boot/{name}");
    let mut files = vec![("/boot/xmhf-bootloader", bootloader.as_slice()), (&name, &hypervisor)];
    files.extend(module.as_ref().map(|bytes| (MODULE, bytes.as_slice())));
    let script = script(options);
    let protocol = commands(options.multiboot).0;
    fs::create_dir_all(folder)?;
    let path = folder.join("xmhf.img");
    Disk { script: &script, modules: &["serial", "terminal", "echo", protocol, "boot"], files: &files }
        .write(&path)?;
    Ok(path)
}

fn script(options: &ImageOptions) -> String {
    let ImageOptions { hypapp, arguments, multiboot, guest_disk, module: hypapp_module, console } = options;
    let (multiboot, module) = commands(*multiboot);
    // As the file is, though it may be compressed.
    let third = hypapp_module.as_ref().map_or_else(String::new, |_| format!("{module} --nounzip {MODULE}\n"));
    format!(
        "serial --port={console:#x} --speed=115200\n\
         terminal_output console serial\n\
         echo GRUB loads the hypervisor\n\
         terminal_output console\n\
         {multiboot} /boot/xmhf-bootloader {arguments}\n\
         {module} /boot/xmhf-{hypapp}.bin\n\
         {module} --nounzip (hd{guest_disk})+1\n\
         {third}boot\n"
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
        assert!(script.starts_with("serial --port=0x2f8 "), "{script}");
    }

    #[test]
    fn a_module_for_the_hypapp_is_the_third() {
        let script = script(&ImageOptions { module: Some("m".into()), ..ImageOptions::default() });
        assert!(script.ends_with("--nounzip (hd1)+1\nmodule --nounzip /boot/module\nboot\n"), "{script}");
    }

    #[test]
    fn a_hypervisor_in_a_hypervisor_leads_to_the_third_disk() {
        let script = script(&ImageOptions::inner(2));
        assert!(script.starts_with("serial --port=0x3f8 "), "{script}");
        assert!(script.contains("serial=115200,8n1,0x3f8 boot_drive=0x82 nested_xmhf=on\n"), "{script}");
        assert!(script.contains("module --nounzip (hd2)+1\n"), "{script}");
    }

    #[test]
    fn second_protocol_has_commands_of_its_own() {
        let script = script(&ImageOptions { multiboot: Multiboot::Two, ..ImageOptions::default() });
        assert!(script.contains("multiboot2 /boot/") && script.contains("module2 --nounzip (hd1)+1"));
    }
}
